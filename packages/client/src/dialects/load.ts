/** Loads one dialect: a device speaks one, and a later boot none. */
import type { DialectOptions } from './choice.ts'
import type { Dialect } from './dialect.ts'

/** Loads one dialect, and none of the others. */
export async function loadDialect(options: DialectOptions): Promise<Dialect> {
  switch (options.name) {
    case 'certvend':
      return (await import('./certvend.ts')).certvend
    case 'awslabs-2018':
      return (await import('./awslabs-2018.ts')).awslabs2018(options)
    case 'awslabs-2020':
      return (await import('./awslabs-2020.ts')).awslabs2020(options)
    case 'iot-atlas':
      return (await import('./iot-atlas.ts')).iotAtlas(options)
    case 'gateway-2021':
      return (await import('./gateway-2021.ts')).gateway2021(options)
    case 'express-2017':
      return (await import('./express-2017.ts')).express2017(options)
  }
}
