/** The lab in a process of its own, with as many devices as asked for; ends with its input. */
import { startLab } from '@certvend/server/lab'

const lab = await startLab()
const devices = []
for (let left = Number(process.argv[2]); left > 0; left--) devices.push(await lab.addDevice())
console.log(JSON.stringify({ vendingUrl: lab.vendingUrl, pins: lab.pins, devices }))
process.stdin.resume().once('end', () => void lab.close())
