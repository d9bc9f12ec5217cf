/**
 * AWS IoT's control plane, as far as this server calls it. The only importer of its SDK.
 *
 * What AWS says is sorted into three: an answer; *not now* (throttled, unreachable, failing: the
 * caller's request is repeated later, see {@link issuerBusy}); and a refusal, which a step may expect
 * ({@link isRefusal}) and which otherwise leaves with AWS's own words, for the log.
 *
 * Region, credentials and endpoint are the SDK's own: `AWS_REGION`, a profile, the instance's role,
 * `AWS_ENDPOINT_URL_IOT`.
 */
import {
  AddThingToThingGroupCommand,
  AttachPolicyCommand,
  AttachThingPrincipalCommand,
  CreateCertificateFromCsrCommand,
  CreatePolicyCommand,
  CreateThingCommand,
  CreateThingTypeCommand,
  DeleteCertificateCommand,
  DescribeCACertificateCommand,
  DescribeCertificateCommand,
  DescribeEndpointCommand,
  DescribeThingCommand,
  DetachPolicyCommand,
  DetachThingPrincipalCommand,
  GetRegistrationCodeCommand,
  IoTClient,
  ListAttachedPoliciesCommand,
  ListCertificatesCommand,
  ListPrincipalThingsCommand,
  RegisterCACertificateCommand,
  RegisterCertificateCommand,
  RegisterCertificateWithoutCACommand,
  UpdateCACertificateCommand,
  UpdateCertificateCommand,
  UpdateThingCommand,
} from '@aws-sdk/client-iot'
import { type Clock, second } from '../clock.ts'
import type { RateGate } from '../rate-gate.ts'
import { issuerBusy, type Waiting } from './issuer.ts'

const commands = {
  AddThingToThingGroup: AddThingToThingGroupCommand,
  AttachPolicy: AttachPolicyCommand,
  AttachThingPrincipal: AttachThingPrincipalCommand,
  CreateCertificateFromCsr: CreateCertificateFromCsrCommand,
  CreatePolicy: CreatePolicyCommand,
  CreateThing: CreateThingCommand,
  CreateThingType: CreateThingTypeCommand,
  DeleteCertificate: DeleteCertificateCommand,
  DescribeCACertificate: DescribeCACertificateCommand,
  DescribeCertificate: DescribeCertificateCommand,
  DescribeEndpoint: DescribeEndpointCommand,
  DescribeThing: DescribeThingCommand,
  DetachPolicy: DetachPolicyCommand,
  DetachThingPrincipal: DetachThingPrincipalCommand,
  GetRegistrationCode: GetRegistrationCodeCommand,
  ListAttachedPolicies: ListAttachedPoliciesCommand,
  ListCertificates: ListCertificatesCommand,
  ListPrincipalThings: ListPrincipalThingsCommand,
  RegisterCACertificate: RegisterCACertificateCommand,
  RegisterCertificate: RegisterCertificateCommand,
  RegisterCertificateWithoutCA: RegisterCertificateWithoutCACommand,
  UpdateCACertificate: UpdateCACertificateCommand,
  UpdateCertificate: UpdateCertificateCommand,
  UpdateThing: UpdateThingCommand,
} as const
type Commands = typeof commands

export type IotOperation = keyof Commands
type Input<Name extends IotOperation> = ConstructorParameters<Commands[Name]>[0]
type Output<Name extends IotOperation> =
  InstanceType<Commands[Name]> extends {
    resolveMiddleware(...input: never[]): (...args: never[]) => Promise<{ output: infer Answer }>
  }
    ? Answer
    : never

export interface IotOptions {
  /** Default: the SDK's own, such as `AWS_REGION`. */
  readonly region?: string
  /** Another control plane: a VPC endpoint, an emulator. Default: AWS's, or `AWS_ENDPOINT_URL_IOT`. */
  readonly endpointUrl?: string
  readonly clock: Clock
  /** Told when AWS throttles, so that what comes next slows down. */
  readonly gate?: RateGate
}

/** AWS IoT's control plane. A call rejects as busy, or as a refusal: {@link isRefusal}. */
export interface Iot {
  /** Makes one call; the SDK repeats it twice where AWS says that this helps. */
  call<Name extends IotOperation>(
    name: Name,
    input: Input<Name>,
    options: Waiting,
  ): Promise<Output<Name>>
  close(): void
}

/** Opens a client. Nothing is sent yet. */
export function openIot(options: IotOptions): Iot {
  const { region, endpointUrl, clock, gate } = options
  const client = new IoTClient({
    maxAttempts: 3,
    requestHandler: {
      connectionTimeout: 3 * second,
      requestTimeout: 10 * second,
      throwOnRequestTimeout: true, // otherwise it only warns
    },
    ...(region !== undefined && { region }),
    ...(endpointUrl !== undefined && { endpoint: endpointUrl }),
  })
  return {
    async call(name, input, { signal }) {
      signal.throwIfAborted()
      try {
        const command = new (commands[name] as unknown as new (input: object) => never)(input ?? {})
        return (await client.send(command, { abortSignal: signal })) as Output<typeof name>
      } catch (error) {
        if (isThrottling(error)) gate?.throttled(name, clock.now())
        throw sorted(error, name)
      }
    },
    close: () => client.destroy(),
  }
}

interface AwsError extends Error {
  readonly $metadata?: { readonly httpStatusCode?: number }
  /** Of ResourceAlreadyExistsException. */
  readonly resourceArn?: string
}

export interface IotRefusal extends Error {
  /** AWS's name for it, such as `ResourceNotFoundException`. */
  readonly refusal: string
  readonly resourceArn?: string
}

/** Whether AWS refused a call, for this reason if one is given. */
export const isRefusal = (error: unknown, reason?: string): error is IotRefusal =>
  error instanceof Error &&
  typeof (error as Partial<IotRefusal>).refusal === 'string' &&
  (reason === undefined || (error as IotRefusal).refusal === reason)

const isThrottling = (error: unknown): boolean =>
  /^(Throttling|ThrottlingException|TooManyRequestsException)$/.test((error as Error).name) ||
  (error as AwsError).$metadata?.httpStatusCode === 429

function sorted(thrown: unknown, operation: IotOperation): Error {
  const error = thrown as AwsError
  const status = error.$metadata?.httpStatusCode
  if (isThrottling(error)) return issuerBusy(5 * second, `AWS throttles iot:${operation}`)
  // An error without a status never had an answer; that of missing credentials never had a request.
  if (status === undefined ? !/Credentials|Token|Config/.test(error.name) : status >= 500)
    return issuerBusy(10 * second, `iot:${operation} failed: ${error.name}`)
  return Object.assign(
    new Error(`AWS refused iot:${operation}: ${error.name}: ${error.message}`, { cause: error }),
    {
      refusal: error.name,
      ...(error.resourceArn !== undefined && { resourceArn: error.resourceArn }),
    },
  )
}
