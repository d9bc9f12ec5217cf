export interface Outcome {
    readonly code: number | null;
    readonly stdout: string;
    readonly stderr: string;
}
/** Runs `certvend` in `cwd`, with no other environment than is given, and waits for its end. */
export declare function certvend(argv: readonly string[], { cwd, env }: {
    cwd: string;
    env?: NodeJS.ProcessEnv;
}): Promise<Outcome>;
