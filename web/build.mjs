// Bundles the pages' scripts and styles into a folder, and writes beside them `assets.rs`: the table of what the control
// plane serves. The same input makes the same bytes.
//
//   node build.mjs <folder>

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const folder = resolve(process.argv[2] ?? 'dist');
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });

const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: { session: 'src/main.js' },
  entryNames: '[name].[hash]',
  chunkNames: '[name].[hash]',
  outdir: folder,
  bundle: true,
  splitting: true,
  format: 'esm',
  target: ['chrome111', 'firefox115', 'safari16.4'],
  minify: true,
  // The licences stand in a file of their own.
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
});

const packages = new Set();
for (const input of Object.keys(metafile.inputs)) {
  const found = input.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found) packages.add(found[1]);
}
writeFileSync(join(folder, 'licenses.txt'), [...packages].sort().map(notice).join('\n'));

/** What a package asks to be said of it. */
function notice(name) {
  const place = join(here, 'node_modules', name);
  const { version, license, homepage, repository } = JSON.parse(readFileSync(join(place, 'package.json'), 'utf8'));
  const source = (repository?.url ?? repository ?? homepage ?? '').replace(/^git\+/, '').replace(/\.git$/, '');
  const at = source.startsWith('http') ? source : `https://www.npmjs.com/package/${name}`;
  const texts = readdirSync(place).filter((file) => /^(licen[cs]e|notice|authors)/i.test(file));
  // noVNC is bundled whole but for its documents, with the library in it that it brings along.
  const more = ['docs/LICENSE.MPL-2.0', 'docs/LICENSE.BSD-3-Clause', 'vendor/pako/LICENSE'];
  const all = name === '@novnc/novnc' ? [...texts, ...more] : texts;
  if (all.length === 0) throw new Error(`${name} brings no licence text`);
  const head = `${'='.repeat(100)}\n${name} ${version}, ${license}\nMinified, otherwise unchanged; its source is at ${at}\n${'='.repeat(100)}\n`;
  return head + all.map((file) => `\n--- ${file}\n\n${readFileSync(join(place, file), 'utf8').trim()}\n`).join('');
}

const types = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
};
const outputs = Object.entries(metafile.outputs).filter(([, output]) => output.entryPoint === 'src/main.js');
const script = basename(outputs[0][0]);
const style = basename(outputs[0][1].cssBundle);

/** A file as a line of the table. */
function line(file) {
  const bytes = readFileSync(join(folder, file));
  const type = types[extname(file)];
  if (!type) throw new Error(`${file}: its kind is not known`);
  writeFileSync(join(folder, `${file}.gz`), gzipSync(bytes, { level: 9 }));
  const tag = createHash('sha256').update(bytes).digest('hex').slice(0, 32);
  const immutable = /\.[0-9A-Z]{8}\./.test(file);
  return [
    `    Asset { name: ${JSON.stringify(file)}, kind: ${JSON.stringify(type)}, tag: "${tag}", immutable: ${immutable},`,
    `        plain: include_bytes!(concat!(env!("OUT_DIR"), "/assets/${file}")),`,
    `        gzip: include_bytes!(concat!(env!("OUT_DIR"), "/assets/${file}.gz")) },`,
  ].join('\n');
}

const files = readdirSync(folder).sort();
writeFileSync(
  join(folder, 'assets.rs'),
  `const SCRIPT: &str = ${JSON.stringify(script)};
const STYLE: &str = ${JSON.stringify(style)};
static ASSETS: &[Asset] = &[
${files.map(line).join('\n')}
];
`,
);
