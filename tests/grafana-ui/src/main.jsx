// Draws a dashboard from the rows of its queries, with the components that Grafana itself uses.
//
// `window.BOARD` is { theme, from, to, panels: [{ panel, title, frames: [{ fields: [{ name, type, values }] }] }] }: panels
// as in the dashboard's file, times in milliseconds. What Grafana's panel plugins do around these components is done here
// in few words: defaults and overrides are applied, names come from a column `metric`, a stat shows its last value. Kinds
// of panel whose component is not published (bars, histograms) are listed as tables.
import { createRoot } from 'react-dom/client';
import { flushSync } from 'react-dom';
import {
  FieldConfigOptionsRegistry, FieldType, applyFieldOverrides, cacheFieldDisplayNames, createTheme, dateTime, getFieldDisplayName, toDataFrame,
} from '@grafana/data';
import { BigValue, GlobalStyles, PanelChrome, ThemeContext, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const { theme: mode, from, to, panels } = window.BOARD;
const theme = createTheme({ colors: { mode } });
const timeZone = 'utc';
const WIDTH = 1600;
const ROW = 38;

// Which properties a field can have. Grafana's panel plugins register them; here each is taken as it is.
const registry = new FieldConfigOptionsRegistry(() => {
  const option = (path, isCustom) => ({
    id: isCustom ? `custom.${path}` : path, path, isCustom, name: path, editor: () => null, override: () => null,
    process: (value) => value, shouldApply: () => true,
  });
  const standard = 'displayName unit min max decimals color thresholds mappings links noValue'.split(' ');
  const custom = ('drawStyle lineInterpolation lineWidth lineStyle fillOpacity fillBelowTo pointSize showPoints spanNulls ' +
    'axisPlacement axisLabel axisBorderShow gradientMode scaleDistribution stacking thresholdsStyle hideFrom align ' +
    'cellOptions inspect width hidden').split(' ');
  return [...standard.map((path) => option(path, false)), ...custom.map((path) => option(path, true))];
});

// Rows with a column `metric` become a frame per name; others stay as they are.
function split(frame) {
  const metric = frame.fields.find((field) => field.name === 'metric' && field.type === FieldType.string);
  if (!metric) return [frame];
  const [time, value] = [frame.fields.find((f) => f.name === 'time'), frame.fields.find((f) => f.type === FieldType.number)];
  return [...new Set(metric.values)].map((name) => {
    const rows = metric.values.flatMap((other, row) => (other === name ? [row] : []));
    const pick = (field, as) => ({ ...field, name: as, values: rows.map((row) => field.values[row]) });
    return { ...frame, fields: [pick(time, 'time'), pick(value, name)] };
  });
}

// Axes without a curve, where a time range holds nothing.
const EMPTY = toDataFrame({
  fields: [
    { name: 'time', type: FieldType.time, config: {}, values: [from, to] },
    { name: 'nothing', type: FieldType.number, config: {}, values: [null, null] },
  ],
});

function prepared({ panel, frames }) {
  const isSeries = panel.type === 'timeseries';
  const data = frames.map((frame) => toDataFrame(frame)).flatMap((frame) => (isSeries ? split(frame) : [frame]));
  const kept = isSeries ? data.filter((frame) => frame.length > 0) : data;
  const ready = applyFieldOverrides({
    data: kept.length ? kept : [EMPTY], fieldConfig: panel.fieldConfig, fieldConfigRegistry: registry, replaceVariables: (text) => text, theme, timeZone,
  });
  cacheFieldDisplayNames(ready);
  return ready;
}

function Content({ entry, width, height }) {
  const { panel } = entry;
  const data = prepared(entry);
  if (panel.type === 'timeseries') {
    const range = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
    return (
      <TimeSeries frames={data} structureRev={1} timeRange={range} timeZone={timeZone} width={width} height={height}
        legend={panel.options.legend} />
    );
  }
  if (panel.type === 'stat') {
    const fields = data[0].fields.filter((field) => field.type === FieldType.number);
    const share = width / fields.length;
    return (
      <div style={{ display: 'flex' }}>
        {fields.map((field) => {
          const value = { ...field.display(field.values[field.values.length - 1]) };
          if (fields.length > 1) value.title = getFieldDisplayName(field, data[0], data);
          return (
            <BigValue key={field.name} value={value} theme={theme} width={share} height={height}
              colorMode={panel.options.colorMode} graphMode="none" textMode={panel.options.textMode} justifyMode="auto" />
          );
        })}
      </div>
    );
  }
  const fields = data[0].fields.filter((field) => !field.config.custom?.hidden);
  return <TableNG data={{ ...data[0], fields }} width={width} height={height} cellHeight="sm" timeRange={undefined} />;
}

function Dashboard() {
  const bottom = Math.max(...panels.map(({ panel: { gridPos } }) => gridPos.y + gridPos.h)) * ROW;
  return (
    <div style={{ position: 'relative', width: WIDTH, height: bottom, background: theme.colors.background.canvas }}>
      {panels.map((entry) => {
        const { x, y, w, h } = entry.panel.gridPos;
        const [width, height] = [(w * WIDTH) / 24 - 8, h * ROW - 8];
        return (
          <div key={entry.panel.id} data-panel={entry.title}
            style={{ position: 'absolute', left: (x * WIDTH) / 24 + 4, top: y * ROW + 4, width, height }}>
            <PanelChrome title={entry.title} width={width} height={height}>
              {(innerWidth, innerHeight) => <Content entry={entry} width={innerWidth} height={innerHeight} />}
            </PanelChrome>
          </div>
        );
      })}
    </div>
  );
}

const root = createRoot(document.getElementById('root'));
flushSync(() => root.render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <Dashboard />
  </ThemeContext.Provider>,
));
