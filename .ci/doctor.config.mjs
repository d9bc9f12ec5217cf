import { defineConfig } from 'vitest/config'

/** Heavier than the suite, and mostly root's: `npm run test:doctor`. */
export default defineConfig({
  test: {
    include: ['test/doctor/*.faults.ts'],
    testTimeout: 90_000,
    hookTimeout: 60_000,
    pool: 'forks',
    maxWorkers: 2,
  },
})
