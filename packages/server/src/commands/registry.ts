/** `certvend-server registry …`: a database is made ready by a person, not by a server that starts. */
import type { Command } from 'commander'
import { failure } from '../failure.ts'
import { chosenAddress, explain, mysqlOptions, type RegistryOptions } from '../registry-address.ts'
import { print, say, type Terminal } from '../terminal.ts'

const examples = `
Make the tables in a MySQL or MariaDB database, as a user who may, and then serve as one who may less:

  $ certvend-server registry prepare --registry mysql://admin@db.example.com/certvend?ca=db-ca.pem \\
      --registry-password-file admin.password

Take over the table 'product' of the vending machine of 2017, with columns of ours beside its own:

  $ certvend-server registry prepare --registry 'mysql://admin@localhost/cvm?devices=product'

Put the second table beside the deviceInfo of an awslabs vending machine, which is left as it is:

  $ certvend-server registry prepare --registry dynamodb:deviceInfo

It says what it did; a second time it does nothing.
`

/** The options that say which registry. */
export const withRegistry = (command: Command): Command =>
  command
    .option(
      '--registry <where>',
      'a file, dynamodb:TABLE or mysql://USER@HOST/DATABASE (default: $CERTVEND_REGISTRY, or registry.db in the data directory)',
    )
    .option(
      '--registry-password-file <file>',
      "the database's password, mode 0600 (default: systemd's credential registry-password)",
    )
    .option('--data-dir <directory>', 'where everything else is kept (default: ./certvend-data)')

export function addRegistryCommands(program: Command, terminal: Terminal): void {
  const group = program
    .command('registry')
    .description('make a database ready to be the registry')
    .addHelpText('after', examples)
  withRegistry(group.command('prepare'))
    .description('make the tables, or what is missing of them')
    .option('--json', 'print JSON')
    .action(async (options: RegistryOptions & { readonly json?: true }) => {
      const done = await prepare(options, terminal).catch((error: unknown) => {
        throw explain(error)
      })
      for (const line of done) say(terminal, line)
      if (done.length === 0) say(terminal, 'all was there')
      if (options.json) print(terminal, { done })
    })
}

async function prepare(options: RegistryOptions, { env }: Terminal): Promise<string[]> {
  const address = chosenAddress(options, env)
  if (address.kind === 'file')
    throw failure(2, 'a registry in a file makes itself', 'name the database: --registry …')
  if (address.kind === 'dynamodb') {
    const { prepareDynamodb } = await import('../registry/dynamodb/preparation.ts')
    return prepareDynamodb(address.options)
  }
  const { prepareMysql } = await import('../registry/sql/mysql.ts')
  return prepareMysql(await mysqlOptions(address, options, env))
}
