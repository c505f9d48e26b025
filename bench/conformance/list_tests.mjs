// Prints every test of an edition with its group, its kind and what it depends on, as JSON.
import { existsSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const folder = process.argv[2]
const load = async name => (await import(pathToFileURL(`${folder}/tests/${name}.mjs`))).default
const groups = [...await load('index')]
// The command-line client adds this group to the index by itself.
if (existsSync(`${folder}/tests/surrogate-control.mjs`) && !groups.some(group => group.id === 'surrogate-control')) {
  groups.push(await load('surrogate-control'))
}
const rows = groups.flatMap(group => group.tests
  .filter(test => !test.browser_only)
  .map(test => ({ id: test.id, group: group.id, kind: test.kind || 'required', depends_on: test.depends_on || [] })))
console.log(JSON.stringify(rows))
