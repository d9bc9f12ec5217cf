/**
 * The stack of `packages/server/template.yaml`, deployed by the commands of `docs/deploy-aws.md` into
 * MiniStack with IAM enforced, and devices brought online through it by the shipped CLI: API Gateway,
 * Lambda, DynamoDB, AWS IoT, MQTT over mutual TLS. `npm run test:aws` starts what it needs.
 *
 * Third parties read AWS's documentation here: where they and AWS differ, AWS is right.
 */
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  connect,
  createCredential,
  createEndpoint,
  type Message,
  type Session,
} from '@certvend/client'
import { beforeAll, describe, expect, it } from 'vitest'
import { start } from '../agent-process.ts'
import { certify, importAuthority } from '../pki.ts'
import { openTlsFront, type TlsFront } from '../tls-front.ts'
import { account, blocksOf, openWorkshop, type Workshop } from './workshop.ts'

const missing = account.url ? (account.cli ? '' : ' (no AWS CLI)') : ' (npm run test:aws)'

/** What MiniStack asks of a role where AWS asks for the certificate's ARN. */
const misjudged = JSON.stringify({
  Version: '2012-10-17',
  Statement: [
    { Effect: 'Allow', Action: 'iot:AttachPolicy', Resource: '*' },
    { Effect: 'Allow', Action: 'iot:AttachThingPrincipal', Resource: 'arn:aws:iot:*:*:thing/*' },
  ],
})

describe.skipIf(missing)(`the deployed vending machine${missing}`, { timeout: 300_000 }, () => {
  let desk: Workshop
  let front: TlsFront
  let listener: Session
  let heard: AsyncIterator<Message>

  const at = (...names: string[]): string => path.join(desk.directory, ...names)
  const brokerEndpoint = () =>
    createEndpoint(`localhost:${account.mqttPort}`, fs.readFileSync(at('mqtt-anchors.pem'), 'utf8'))

  /** The output of the stack of that name. */
  const outputOf = (name: string): Promise<string> => desk.must(`output ${name}`)

  /** Lets roles of the stack do what MiniStack judges by another resource than AWS. */
  const forgiveMisjudgement = (...roles: readonly string[]): Promise<string> =>
    desk.must(
      roles
        .map(
          (role) =>
            `aws iam put-role-policy --policy-name ministack --policy-document '${misjudged}' --role-name \
             "$(aws cloudformation describe-stack-resource --stack-name "$STACK" --logical-resource-id ${role} \
               --output text --query StackResourceDetail.PhysicalResourceId)"`,
        )
        .join('\n'),
    )

  /** Adds a device; its token is in `<serial>.token`. */
  const addDevice = (serial: string): Promise<string> =>
    desk.must(`certvend-server device add ${serial} > ${serial}.token`)

  const enroll = (serial: string, state = `state-${serial}`): Promise<string> =>
    desk.must(
      `certvend enroll --server "$VENDING_URL" --pin pins.pem --serial ${serial} \
       --token-file ${serial}.token --state-dir ./${state} --once`,
    )

  /** Waits until the listener hears that a device is online, past what it said when it stopped before. */
  async function hear(serial: string): Promise<void> {
    for (;;) {
      const { value, done } = await heard.next()
      if (done) throw new Error('the listener lost its session')
      const { online } = JSON.parse(Buffer.from(value.payload).toString())
      if (value.topic === `certvend/${serial}/status` && online === true) return
    }
  }

  /** Runs the agent until it is online, and waits for what it published. @returns its log */
  async function bringOnline(serial: string, state = `state-${serial}`) {
    const agent = start(['run', '--state-dir', at(state)], {
      cwd: desk.directory,
      env: { NODE_NO_WARNINGS: '1' },
    })
    await agent.until('publish.acknowledged')
    await hear(serial)
    const { events } = agent
    await agent.terminate()
    return events
  }

  const certificateOf = async (serial: string, state = `state-${serial}`) =>
    JSON.parse(await desk.must(`certvend status --state-dir ./${state} --json`)).credential

  const statusOf = (certificateId: string): Promise<string> =>
    desk.must(
      `aws iot describe-certificate --certificate-id ${certificateId} --output text --query certificateDescription.status`,
    )

  /** Calls until `what` holds. */
  async function eventually(what: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + 20_000
    while (!(await what())) if (Date.now() > deadline) throw new Error('it never came to that')
  }

  beforeAll(async () => {
    const directory = fs.mkdtempSync(path.join(fs.realpathSync(tmpdir()), 'certvend-deploy-'))
    desk = await openWorkshop(directory)
    const made = JSON.parse(
      await desk.must('aws iot create-keys-and-certificate --set-as-active --output json'),
    )
    const anything =
      '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
    await desk.must(
      `aws iot create-policy --policy-name listener --policy-document '${anything}'
       aws iot attach-policy --policy-name listener --target ${made.certificateArn}`,
    )
    listener = await connect(
      createCredential({
        thingName: 'listener',
        certificateChain: made.certificatePem,
        privateKey: made.keyPair.PrivateKey,
        endpoint: brokerEndpoint(),
      }),
    )
    heard = (await listener.subscribe('certvend/+/status'))[Symbol.asyncIterator]()
    return async () => {
      await listener.close()
      await front?.close()
      fs.rmSync(directory, { recursive: true })
    }
  })

  it('is bundled and deployed by the first two steps of docs/deploy-aws.md', async () => {
    const [names = '', deployment = ''] = blocksOf('Deploy')
    await desk.must(blocksOf('Bundle the functions').join(''))
    await desk.must(names + deployment)
    desk.keep(
      names
        .split('\n')
        .filter((line) => line.startsWith('export'))
        .join('\n'),
    )
    const [outputs = ''] = blocksOf('See that it answers')
    desk.keep(outputs)
    const host = new URL(await outputOf('VendingUrl')).host
    front = await openTlsFront(new URL(account.url!), host)
    // MiniStack's API Gateway has no TLS: our front stands for it, so these are not Amazon's roots.
    fs.writeFileSync(at('pins.pem'), front.pin)
    desk.keep(`VENDING_URL=${front.url}; export CURL_CA_BUNDLE=$PWD/pins.pem`)
    await forgiveMisjudgement('VendRole')
  })

  it('answers its health, by the third', async () => {
    const [, health = ''] = blocksOf('See that it answers')
    expect(JSON.parse(await desk.must(health))).toEqual({ status: 'ok' })
  })

  it('gives a device that was added to DynamoDB a certificate of AWS IoT’s, and it is online', async () => {
    await desk.must(blocksOf('Add a device').join(''))
    const [enrollment = '', , after = ''] = blocksOf('Bring it online')
    expect(await desk.must(enrollment)).toContain('enrolled GW-0001 as GW-0001')
    await bringOnline('GW-0001', 'state')
    const { certificateId } = await certificateOf('GW-0001', 'state')
    expect(await statusOf(certificateId)).toBe('ACTIVE')
    expect(await desk.must(after)).toContain(certificateId)
  })

  it('asks the vending machine nothing on a later boot', async () => {
    const before = front.requests.length
    await bringOnline('GW-0001', 'state')
    expect(front.requests.length).toBe(before)
  })

  it('refuses a wrong token, an unknown device and another key, and none of them gets a certificate', async () => {
    const held = await desk.must('aws iot list-certificates --query "length(certificates)"')
    await addDevice('GW-0002')
    for (const [serial, token] of [
      ['GW-0002', 'not-the-token-of-this-device'],
      ['GW-9999', 'not-the-token-of-this-device'],
    ]) {
      fs.writeFileSync(at('wrong.token'), `${token}\n`, { mode: 0o600 })
      const refused = await desk.sh(
        `certvend enroll --server "$VENDING_URL" --pin pins.pem --serial ${serial} --token-file wrong.token --state-dir ./refused-${serial} --once`,
      )
      expect(refused.code).toBe(3)
      expect(refused.err).toContain('ERR_CLAIM_REFUSED')
    }
    const stolen = await desk.sh(
      'certvend enroll --server "$VENDING_URL" --pin pins.pem --serial GW-0001 --token-file claim.token --state-dir ./stolen --once',
    )
    expect(stolen.code).toBe(3)
    expect(stolen.err).toContain('ERR_CLAIM_SPENT')
    expect(await desk.must('aws iot list-certificates --query "length(certificates)"')).toBe(held)
  })

  it('with a CA of your own, in a secret, issues for as long as you say', async () => {
    const [ca = '', redeploy = ''] = blocksOf('A CA of your own for the devices')
    await desk.must(`${ca}echo "CA_SECRET=$CA_SECRET" > ca-secret`)
    desk.keep('. ./ca-secret')
    await desk.must(redeploy)
    await enroll('GW-0002')
    await bringOnline('GW-0002')
    const { certificateId, notAfter } = await certificateOf('GW-0002')
    expect(await statusOf(certificateId)).toBe('ACTIVE')
    expect(Date.parse(notAfter) - Date.now()).toBeLessThan(365 * 24 * 60 * 60 * 1000)
  })

  it('retires the certificate before, when a re-armed device has opened its first session', async () => {
    const { certificateId: first } = await certificateOf('GW-0002')
    await desk.must('certvend-server device rearm GW-0002 > GW-0002.token')
    await enroll('GW-0002', 'state-new-hardware')
    expect(await statusOf(first)).toBe('ACTIVE')
    await bringOnline('GW-0002', 'state-new-hardware')
    const { certificateId: second } = await certificateOf('GW-0002', 'state-new-hardware')
    expect(second).not.toBe(first)
    await eventually(async () => (await statusOf(first)) === 'INACTIVE')
    expect(await statusOf(second)).toBe('ACTIVE')
  })

  describe('with certificates that register themselves', () => {
    it('activates one that it vended, at its first connect', async () => {
      await desk.must(blocksOf('Certificates that register themselves').join(''))
      await forgiveMisjudgement('ActivateRole')
      await addDevice('GW-0003')
      await enroll('GW-0003')
      const { certificateId } = await certificateOf('GW-0003')
      expect(
        (await desk.sh(`aws iot describe-certificate --certificate-id ${certificateId}`)).err,
      ).toContain('ResourceNotFoundException')
      const events = await bringOnline('GW-0003')
      expect(events.find(({ event }) => event === 'session.retry')).toMatchObject({
        code: 'ERR_SESSION_REFUSED',
      })
      expect(await statusOf(certificateId)).toBe('ACTIVE')
    })

    it('leaves one of the same CA that it never vended pending, for ever, and raises an alarm', async () => {
      const secret = await desk.must(
        'aws secretsmanager get-secret-value --secret-id "$CA_SECRET" --query SecretString --output text',
      )
      const stranger = await certify('stranger', { issuer: await importAuthority(secret) })
      const credential = createCredential({
        thingName: 'stranger',
        certificateChain: stranger.certificate,
        privateKey: stranger.privateKey,
        endpoint: brokerEndpoint(),
      })
      const { certificateId } = credential
      const log = () =>
        desk.must(
          `aws logs filter-log-events --output text --query 'events[].message' --log-group-name \
           "$(aws logs describe-log-groups --output text --query "logGroups[?contains(logGroupName,'ActivateLogs')].logGroupName")"`,
        )
      await expect(connect(credential)).rejects.toMatchObject({ code: 'ERR_SESSION_REFUSED' })
      await eventually(async () => (await log()).includes(certificateId))
      for (let knock = 0; knock < 2; knock += 1)
        await expect(connect(credential)).rejects.toMatchObject({ code: 'ERR_SESSION_REFUSED' })
      expect(await statusOf(certificateId)).toBe('PENDING_ACTIVATION')
      expect((await log()).split('certificate-unknown').length - 1).toBe(1)
    })
  })

  describe('for devices of older vending machines', () => {
    const dialect = (
      name: string,
      serial: string,
      url: string,
      pins = 'pins.pem',
    ): Promise<string> =>
      desk.must(
        `certvend enroll --dialect ${name} --server "${url}" --pin ${pins} --serial ${serial} \
         --token-file ${serial}.token --endpoint localhost:${account.mqttPort} \
         --endpoint-anchors mqtt-anchors.pem --state-dir ./state-${serial} --once`,
      )

    it('answers awslabs 2018 and 2020 below a stage each, and IoT Atlas', async () => {
      await desk.must(
        `aws cloudformation deploy --template-file dist/packaged.yaml --stack-name "$STACK" \
         --capabilities CAPABILITY_IAM --parameter-overrides Issuer=aws-iot EnableJitr=false \
         Dialects=awslabs-2018=/LATEST,awslabs-2020=/Prod,iot-atlas EnableShadow=true`,
      )
      for (const [name, serial, prefix] of [
        ['awslabs-2020', 'OLD-0001', '/Prod'],
        ['awslabs-2018', 'OLD-0003', '/LATEST'],
        ['iot-atlas', 'OLD-0002', ''],
      ] as const) {
        await addDevice(serial)
        await dialect(name, serial, `$VENDING_URL${prefix}`)
        await bringOnline(serial)
      }
    })

    /** The function's own answer to what a mapping template makes of a request. */
    async function invoke(event: unknown): Promise<unknown> {
      fs.writeFileSync(at('event.json'), JSON.stringify(event))
      await desk.must(
        'aws lambda invoke --function-name "$(output VendFunctionArn)" --payload file://event.json answer.json',
      )
      return JSON.parse(fs.readFileSync(at('answer.json'), 'utf8'))
    }

    it('answers the events of integrations without proxy raw', async () => {
      const token = async (serial: string) => {
        await addDevice(serial)
        return fs.readFileSync(at(`${serial}.token`), 'utf8').trim()
      }
      const first = await invoke({ serialNumber: 'OLD-0004', deviceToken: await token('OLD-0004') })
      expect(first).toMatchObject({
        certificatePem: expect.stringContaining('BEGIN CERTIFICATE'),
        keyPair: { PrivateKey: expect.stringContaining('PRIVATE KEY') },
      })
      expect(first).not.toHaveProperty('statusCode')
      const wrong = 'not-the-token-of-this-device'
      expect(await invoke({ serialNumber: 'OLD-0004', deviceToken: wrong })).toBe('Access Deny!')
      const second = { device_uid: 'OLD-0005', device_token: await token('OLD-0005') }
      expect(await invoke(second)).toMatchObject({ statusCode: 200, status: 'SUCCESS' })
      expect(await invoke({ ...second, device_token: wrong })).toMatchObject({ status: 'ERROR' })
    })

    it('stands behind the API that awslabs made in 2018, on its own host', async (context) => {
      const template = JSON.stringify({
        'application/json': `{"serialNumber": "$input.params('serialNumber')", "deviceToken": "$input.params('deviceToken')"}`,
      })
      fs.writeFileSync(at('mapping.json'), template)
      const method = '--rest-api-id $API --resource-id $GETCERT --http-method GET'
      const api = await desk.must(`
        exec 3>&1 1>&2
        API=$(aws apigateway create-rest-api --name old --query id --output text)
        TOP=$(aws apigateway get-resources --rest-api-id $API --query 'items[0].id' --output text)
        GETCERT=$(aws apigateway create-resource --rest-api-id $API --parent-id $TOP --path-part getcert --query id --output text)
        aws apigateway put-method ${method} --authorization-type NONE
        aws apigateway put-method-response ${method} --status-code 200
        aws apigateway put-integration ${method} --type AWS --integration-http-method POST --request-templates file://mapping.json \
          --uri "arn:aws:apigateway:$AWS_REGION:lambda:path/2015-03-31/functions/$(output VendFunctionArn)/invocations"
        aws apigateway put-integration-response ${method} --status-code 200
        aws apigateway create-deployment --rest-api-id $API --stage-name LATEST
        ACCOUNT=$(aws sts get-caller-identity --query Account --output text) OLD_API=$API
        ${blocksOf('Devices of an older vending machine').join('')}
        echo $API >&3`)
      const host = `${api}.execute-api.localhost:${new URL(account.url!).port}`
      const old = await openTlsFront(new URL(account.url!), host)
      try {
        fs.writeFileSync(at('old-pins.pem'), old.pin)
        const url = `${old.url}/LATEST/getcert?serialNumber=OLD-0006&deviceToken=wrong`
        const refused = JSON.parse(await desk.must(`curl -sS --cacert old-pins.pem "${url}"`))
        context.skip(
          refused?.statusCode !== undefined,
          'this MiniStack gives a function without proxy integration the event of one with it',
        )
        expect(refused).toBe('Access Deny!')
        await addDevice('OLD-0006')
        await dialect('awslabs-2018', 'OLD-0006', `${old.url}/LATEST`, 'old-pins.pem')
        await bringOnline('OLD-0006')
      } finally {
        await old.close()
      }
    })

    it('reads and writes the shadow of a device of awslabs 2020', async () => {
      const shadow = `$VENDING_URL/Prod/shadow?serialNumber=OLD-0001&deviceToken=$(cat OLD-0001.token)`
      const put = `curl -sS -X PUT -H content-type:application/json -d '{"colour":"blue"}' "${shadow}"`
      expect(JSON.parse(await desk.must(put))).toEqual({ colour: 'blue' })
      expect(JSON.parse(await desk.must(`curl -sS "${shadow}"`))).toEqual({})
    })
  })

  it('sweeps, within its permissions, and takes nothing from anybody', async () => {
    const list = () => desk.must('aws iot list-certificates --output json')
    const before = JSON.parse(await list()).certificates.length
    await desk.must(
      `aws lambda invoke --function-name "$(aws lambda list-functions --output text --query "Functions[?contains(FunctionName,'SweepFunction')].FunctionName")" report.json`,
    )
    const report = JSON.parse(fs.readFileSync(at('report.json'), 'utf8'))
    expect(report).toMatchObject({ seen: before, withdrawn: 0 })
    expect(JSON.parse(await list()).certificates.length).toBe(before - report.removed)
    await bringOnline('GW-0003')
  })

  it('has told its logs no token and no key', async () => {
    const groups = await desk.must(
      'aws logs describe-log-groups --output text --query "logGroups[].logGroupName"',
    )
    let logs = ''
    for (const group of groups.split(/\s+/))
      logs += await desk.must(
        `aws logs filter-log-events --output text --query "events[].message" --log-group-name ${group}`,
      )
    expect(logs).toContain('"event":"enrolled"')
    const tokens = fs.readdirSync(desk.directory).filter((name) => name.endsWith('.token'))
    expect(tokens.length).toBeGreaterThan(5)
    for (const name of tokens) expect(logs).not.toContain(fs.readFileSync(at(name), 'utf8').trim())
    expect(logs).not.toMatch(/PRIVATE KEY|deviceToken|Bearer/)
  })
})
