/** Draws `docs/herd.svg`: who is back how long after the broker's return. */

interface Run {
  readonly outageSeconds: number
  /** Seconds, ascending. */
  readonly back: readonly number[]
  readonly busiest: number
  readonly median: number
}

const size = { width: 720, height: 360, left: 56, right: 196, top: 24, bottom: 44 }
const colours = ['#1b6ca8', '#2a9d8f', '#b5851b', '#c8553d', '#6d597a']
const horizon = 300

export function plotHerd(runs: readonly Run[]): string {
  const across = size.width - size.left - size.right
  const down = size.height - size.top - size.bottom
  // Seconds on a scale that keeps the first ones apart and the last ones in sight.
  const x = (seconds: number): string =>
    (size.left + (across * Math.log10(1 + seconds)) / Math.log10(1 + horizon)).toFixed(1)
  const y = (share: number): string => (size.top + down * (1 - share)).toFixed(1)
  const lines = runs.map(({ back, outageSeconds, busiest }, index) => {
    const colour = colours[index] as string
    const points = back
      .filter((_, place) => place % 10 === 9)
      .map(
        (seconds, place) =>
          `${x(Math.min(seconds, horizon))},${y((place * 10 + 10) / back.length)}`,
      )
    const label = `${outageSeconds} s: at most ${(busiest * 100).toFixed(1)} % a second`
    const row = size.top + 16 + index * 20
    return [
      `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${points.join(' ')}"/>`,
      `<text x="${size.width - size.right + 12}" y="${row}" fill="${colour}">${label}</text>`,
    ].join('\n')
  })
  const ticks = [0, 1, 3, 10, 30, 100, 300].map(
    (seconds) =>
      `<text x="${x(seconds)}" y="${size.height - size.bottom + 18}" text-anchor="middle">${seconds}</text>`,
  )
  const shares = [0, 0.25, 0.5, 0.75, 1].map(
    (share) =>
      `<line x1="${size.left}" x2="${size.width - size.right}" y1="${y(share)}" y2="${y(share)}" stroke="#ddd"/>` +
      `<text x="${size.left - 8}" y="${Number(y(share)) + 4}" text-anchor="end">${share * 100} %</text>`,
  )
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${size.width}" height="${size.height}" fill="#fff"/>`,
    ...shares,
    ...ticks,
    `<text x="${size.left + across / 2}" y="${size.height - 8}" text-anchor="middle">seconds after the broker's return</text>`,
    `<text x="${size.width - size.right + 12}" y="${size.top - 4}">outage of</text>`,
    ...lines,
    '</svg>\n',
  ].join('\n')
}
