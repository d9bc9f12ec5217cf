/** The built command as a child process, from start to exit. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
const binary = fileURLToPath(new URL('../dist/main.js', import.meta.url));
/** Runs `certvend` in `cwd`, with no other environment than is given, and waits for its end. */
export function certvend(argv, { cwd, env = {} }) {
    const child = spawn(process.execPath, [binary, ...argv], {
        cwd,
        env: { PATH: process.env.PATH, HOME: cwd, ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
    });
    const stdout = [];
    const stderr = [];
    child.stdout.on('data', (bytes) => stdout.push(bytes));
    child.stderr.on('data', (bytes) => stderr.push(bytes));
    return new Promise((resolve, reject) => {
        child.once('error', reject);
        child.once('close', (code) => resolve({
            code,
            stdout: Buffer.concat(stdout).toString(),
            stderr: Buffer.concat(stderr).toString(),
        }));
    });
}
