/** Steps 5 to 7, and the same work with the registry in MariaDB: by TLS, by its socket, on the old table. */
import { certify } from '../pki.ts'
import { attempt, bringOnline, enroll } from './device.ts'
import { instead, passwords, type Site } from './site.ts'

const environment = 'etc/certvend-server/environment'
const ready = 'curl -fsS http://127.0.0.1:9464/readyz'

export async function database(site: Site): Promise<void> {
  const { machine, desk, page, report } = site
  const { step, holds } = report
  const [making, tls] = page.take('5')
  const [preparing, granting] = page.take('6')
  const [handing, address, restarting, socketUser, socketAddress] = page.take('7')
  const [, vend] = page.take('8')
  if (!making || !tls || !preparing || !granting || !handing || !address || !restarting)
    throw new Error('a step has fewer blocks than it had')
  if (!socketUser || !socketAddress || !vend) throw new Error('a step has fewer blocks than it had')
  const before = await desk.must(`cat /${environment}`)

  const ask = (sql: string): Promise<string> =>
    desk.must(`mariadb --skip-column-names --batch <<'SQL'\n${sql}\nSQL`)
  const asPage = (sql: string): Promise<string> =>
    ask(Object.entries(instead).reduce((text, [here, there]) => text.replaceAll(here, there), sql))
  /** The certificate that the database shows from here on. */
  async function show(name: string, issuer = site.databaseCa): Promise<void> {
    const { certificate, privateKey } = await site.identity(name, issuer)
    await desk.put('etc/mysql/server.pem', certificate)
    await desk.put('etc/mysql/server.key', privateKey, { mode: 0o600, owner: 'mysql' })
    await desk.must('systemctl restart mariadb')
  }
  const nameRegistry = (line: string): Promise<void> => desk.put(environment, `${before}\n${line}`)
  const state = (): Promise<string> =>
    desk.must('systemctl show certvend-server -p ActiveState -p ExecMainStatus --value')
  /** Starts the service, which ends, and stays so until a person acts. @returns its last words */
  async function refusal(): Promise<string> {
    await site.journal()
    holds((await desk.try('systemctl restart certvend-server')).code !== 0, 'systemctl fails')
    await machine.until('systemctl is-failed certvend-server')
    holds((await state()) === '3\nfailed', await state())
    return site.journal()
  }

  await step(
    'step 5: MariaDB has a database, two users, and a certificate of its own',
    async () => {
      await desk.put('etc/mysql/mariadb.conf.d/60-tls.cnf', tls.text)
      await desk.put('etc/mysql/db-ca.pem', site.databaseCa.certificate)
      await show('db.example.com')
      await asPage(making.text)
    },
  )

  await step('step 6: a password that others could read is refused', async () => {
    await desk.put('home/dba/db-ca.pem', site.databaseCa.certificate)
    const owner = 'dba'
    await desk.put('home/dba/admin.password', `${passwords.admin}\n`, { mode: 0o640, owner })
    const [line = ''] = preparing.text.split('\n# ')
    const refused = await desk.try(line.replace('$ ', ''), 'dba')
    holds(refused.code === 3 && refused.err.includes('chmod 600 admin.password'), refused.err)
    await desk.must('chmod 600 /home/dba/admin.password')
  })

  await step(
    'step 6: the tables are made by one who may, and used by one who may less',
    async () => {
      const [first] = await desk.type(preparing, { user: 'dba' })
      holds(first?.err.includes('made the table certvend_devices') === true, JSON.stringify(first))
      const [second] = await desk.type(preparing, { user: 'dba' })
      holds(second?.err.includes('all was there') === true, JSON.stringify(second))
      await asPage(granting.text)
      const login = `MYSQL_PWD=${passwords.certvend} mariadb -h db.example.com -u certvend --ssl-ca /home/dba/db-ca.pem vending -e`
      await desk.must(`${login} 'SELECT * FROM certvend_devices'`)
      holds((await desk.try(`${login} 'DROP TABLE certvend_devices'`)).code !== 0, 'no DROP')
    },
  )

  await step('step 7: the server uses them', async () => {
    await desk.put('root/db-ca.pem', site.databaseCa.certificate)
    await desk.type(handing, { keyboard: `${passwords.certvend}\n` })
    holds(
      (await desk.must('stat -c "%a %U" /etc/certvend-server/registry-password')) === '600 root',
      'mode',
    )
    await nameRegistry(address.text)
    await desk.type(restarting)
    await desk.must(ready)
  })

  await step(
    'step 8 on the database: a device is added, gets its certificate, and is online',
    async () => {
      await desk.type(vend)
      holds(!(await desk.must('vend device list')).includes('SN-0001'), 'it is another registry')
      await enroll(site, 'DB-0001')
      for (const block of page.take('9')) await desk.type(block)
      holds(await bringOnline(site, 'DB-0001', 'first'), 'online')
      holds(
        (await ask('SELECT device_serial FROM vending.certvend_devices')) === 'DB-0001',
        'its row',
      )
      const words = await desk.must('vend device show DB-0001 --history; vend device audit')
      holds(words.includes('enrolled'), words)
    },
  )

  await step('nobody changes the trail, not even root', async () => {
    for (const sql of ['DELETE FROM', 'UPDATE'])
      holds(
        (
          await desk.try(
            `mariadb vending -e "${sql} certvend_audit ${sql === 'UPDATE' ? "SET name = 'x'" : ''}"`,
          )
        ).err.includes('append-only'),
        sql,
      )
  })

  await step(
    'the database goes away and comes back: the server waits, and is ready again',
    async () => {
      const [pid, now] = [
        await desk.must('systemctl show certvend-server -p MainPID -p NRestarts'),
        'vend device list',
      ]
      await desk.must('systemctl stop mariadb')
      const asked = await desk.try('curl -sS -w "%{http_code}" http://127.0.0.1:9464/readyz')
      holds(asked.out === 'not ready\n503', asked.out)
      const busy = await desk.try(now)
      holds(busy.code === 1, `${busy.code}: ${busy.err}`)
      const told = await attempt(site, 'DB-0001', 'busy')
      holds(told.code === 1, `the device is asked to come back: ${told.err}`)
      await desk.must('systemctl start mariadb')
      await desk.must(ready)
      holds(
        (await desk.must('systemctl show certvend-server -p MainPID -p NRestarts')) === pid,
        'the same process',
      )
    },
  )

  await step('started before its database it is started again, until that is there', async () => {
    await desk.must('systemctl stop mariadb')
    holds((await desk.try('systemctl restart certvend-server')).code !== 0, 'systemctl says so')
    holds((await state()) === '1\nactivating', await state())
    await desk.must('systemctl start mariadb')
    await machine.until(ready)
  })

  await step(
    'a database that shows a certificate for another name, or from another CA, is refused',
    async () => {
      await show('db.example.org')
      const name = await refusal()
      holds(/cannot be trusted: .* does not match/.test(name), name)
      await show('db.example.com', await certify('Another CA', { ca: true }))
      const ca = await refusal()
      holds(/cannot be trusted: .*certificate/.test(ca), ca)
      const prepared = await desk.try(preparing.text.replace('$ ', ''), 'dba')
      holds(prepared.code === 3 && /certificate/.test(prepared.err), prepared.err)
      report.say(`        ${/certvend-server: the database.*/.exec(name)?.[0]}`)
      report.say(`        ${prepared.err.trim().replaceAll('\n', '\n        ')}`)
      await show('db.example.com')
    },
  )

  await step('a wrong password is refused, and not tried again and again', async () => {
    await desk.type(handing, { keyboard: 'not-the-password\n' })
    const words = await refusal()
    holds(words.includes('Access denied') && !words.includes('not-the-password'), words)
    await desk.type(handing, { keyboard: `${passwords.certvend}\n` })
  })

  await step('step 7 by the socket: the same database', async () => {
    await asPage(socketUser.text)
    await nameRegistry(socketAddress.text)
    await desk.type(restarting)
    await desk.must(ready)
    await enroll(site, 'DB-0002')
  })

  await step('on the table of 2017: its rows enroll by their tokens', async () => {
    await ask(`USE vending;
      CREATE TABLE product (id INT AUTO_INCREMENT PRIMARY KEY, seriaNum VARCHAR(255) NOT NULL,
        accessToken VARCHAR(255), applyState INT DEFAULT 0, thingName VARCHAR(255), policyName VARCHAR(255));
      INSERT INTO product (seriaNum, accessToken, applyState) VALUES ('OLD-0001', 'burned-in-token-1', 1);`)
    const adopting = { '?ca=db-ca.pem': '?ca=db-ca.pem&devices=product' }
    const [done] = await desk.type(preparing, { user: 'dba', instead: adopting })
    holds(
      done?.err.includes('added the column product.certvend_thing') === true,
      JSON.stringify(done),
    )
    await nameRegistry(address.text.replace('\n', '&devices=product\n'))
    await desk.type(restarting)
    await desk.put('root/OLD-0001.token', 'burned-in-token-1\n', { mode: 0o600 })
    await enroll(site, 'OLD-0001')
    const row = 'SELECT accessToken, certvend_token_kind, applyState FROM vending.product'
    holds((await ask(row)) === 'NULL\tscrypt\t1', await ask(row))
    await desk.must(
      `export CERTVEND_REGISTRY="$CERTVEND_REGISTRY&devices=product"; vend device disable OLD-0001`,
    )
    holds((await ask(row)) === 'NULL\tscrypt\t0', await ask(row))
    const { code } = await attempt(site, 'OLD-0001', 'disabled')
    holds(code !== 0, 'disabled, it gets none')
  })
}
