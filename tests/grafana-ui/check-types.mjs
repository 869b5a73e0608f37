// Checks the dashboards against the types that Grafana publishes: a TypeScript file per dashboard, with the JSON as a
// literal, must compile. Enumerations are compared by their values.
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const dashboards = process.argv[2] ?? join(import.meta.dirname, '../../dashboards');
const panels = { timeseries: 'TimeSeries', barchart: 'BarChart', histogram: 'Histogram', stat: 'Stat', table: 'Table', heatmap: 'Heatmap' };
const folder = mkdtempSync(join(import.meta.dirname, 'types-'));
const module = (kind) => `@grafana/schema/dist/esm/raw/composable/${kind}/panelcfg/x/${panels[kind]}PanelCfg_types.gen`;
const plain = `type S<T> = T extends string ? \`\${T}\` : T extends number | boolean | null | undefined ? T
  : T extends (infer U)[] ? S<U>[] : T extends object ? { [K in keyof T]: S<T[K]> } : T;\n`;

for (const file of readdirSync(dashboards).filter((name) => name.endsWith('.json'))) {
  const board = JSON.parse(readFileSync(join(dashboards, file), 'utf8'));
  const kinds = new Set(board.panels.map((panel) => panel.type).filter((kind) => kind in panels));
  // Rows of annotations' queries and what variables have besides are not in the published types.
  let text = `import type { Dashboard } from '@grafana/schema';\n`;
  for (const kind of kinds) text += `import type * as ${kind} from '${module(kind)}';\n`;
  text += plain;
  text += `export const board: Omit<S<Dashboard>, 'templating' | 'annotations'> & { templating: { list: any[] }, annotations: { list: any[] } } = ${JSON.stringify(board)};\n`;
  board.panels.forEach((panel, index) => {
    if (!(panel.type in panels)) return;
    text += `export const options${index}: Partial<S<${panel.type}.Options>> = ${JSON.stringify(panel.options)};\n`;
    if (panel.fieldConfig.defaults.custom) {
      text += `export const custom${index}: S<${panel.type}.FieldConfig> = ${JSON.stringify(panel.fieldConfig.defaults.custom)};\n`;
    }
  });
  writeFileSync(join(folder, file.replace('.json', '.ts')), text);
}
const flags = '--noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext'.split(' ');
const files = readdirSync(folder).map((name) => join(folder, name));
const result = spawnSync(process.execPath, [join(import.meta.dirname, 'node_modules/typescript/bin/tsc'), ...flags, ...files], { encoding: 'utf8' });
rmSync(folder, { recursive: true });
process.stdout.write(result.stdout + result.stderr);
process.exit(result.status);
