import { describe, expect, it } from 'vitest'
import { type Output, openTerminal, type Terminal } from '../src/terminal.ts'

function open(stderr: Partial<Output>): { terminal: Terminal; out: string[]; err: string[] } {
  const out: string[] = []
  const err: string[] = []
  const terminal = openTerminal(
    { write: (text) => out.push(text) },
    { ...stderr, write: (text) => err.push(text) },
  )
  return { terminal, out, err }
}

describe('progress', () => {
  it('is a plain line for each thing when piped, waits included', () => {
    const { terminal, out, err } = open({})
    terminal.progress('asking')
    terminal.progress('again in 1 s', { passing: true })
    terminal.progress('stored')
    expect(err.join('')).toBe('asking\nagain in 1 s\nstored\n')
    expect(out).toEqual([])
  })

  it('takes the line of a wait back on a terminal', () => {
    const { terminal, err } = open({ isTTY: true })
    terminal.progress('again in 1 s', { passing: true })
    terminal.progress('again in 2 s', { passing: true })
    terminal.progress('stored')
    expect(err.join('')).toBe('again in 1 s\r\x1b[Kagain in 2 s\r\x1b[Kstored\n')
  })

  it('keeps a wait to one row of the terminal', () => {
    const { terminal, err } = open({ isTTY: true, columns: 20 })
    terminal.progress('x'.repeat(100), { passing: true })
    expect(err.join('')).toBe('x'.repeat(19))
  })
})

describe('an error', () => {
  it('is prefixed, followed by its hint, and goes to stderr only', () => {
    const { terminal, out, err } = open({})
    terminal.fail({ exitCode: 2, message: 'no pin', hint: 'name one' })
    expect(err.join('')).toBe('certvend: no pin\nhint: name one\n')
    expect(out).toEqual([])
  })

  it('takes back a wait that was showing', () => {
    const { terminal, err } = open({ isTTY: true })
    terminal.progress('again in 1 s', { passing: true })
    terminal.fail({ exitCode: 1, message: 'stopped by SIGINT' })
    expect(err.join('')).toBe('again in 1 s\r\x1b[Kcertvend: stopped by SIGINT\n')
  })
})
