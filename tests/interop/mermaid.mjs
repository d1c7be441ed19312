// Reads flowcharts with Mermaid's own parser: a JSON array of texts on standard input, what it understood of each on standard output.

import { readFileSync } from 'node:fs'
import { parseHTML } from 'linkedom'

// Labels are cleaned by DOMPurify, which needs a document as it is loaded.
globalThis.window = parseHTML('<!doctype html><html><body></body></html>')
globalThis.document = globalThis.window.document
const { default: mermaid } = await import('mermaid')

async function understood(text) {
  let db
  try {
    await mermaid.parse(text) // which learns the kinds of diagrams first
    db = (await mermaid.mermaidAPI.getDiagramFromText(text)).db
  } catch (error) {
    return { error: error.message }
  }
  return {
    vertices: Object.fromEntries([...db.getVertices().values()].map((each) => [each.id, [each.type ?? '', each.text]])),
    subgraphs: Object.fromEntries(db.getSubGraphs().map((each) => [each.id, [each.title, each.nodes]])),
    edges: db.getEdges().map((each) => [each.start, each.end, each.stroke]),
  }
}

const answers = []
for (const text of JSON.parse(readFileSync(0, 'utf8'))) answers.push(await understood(text))
process.stdout.write(JSON.stringify(answers))
process.exit()
