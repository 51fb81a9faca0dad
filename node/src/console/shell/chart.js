// Lines over time, drawn anew in place. No axis moves while values stay below its top.

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 130, LEFT = 44, BOTTOM = 16, TOP = 8;

function s(tag, attributes = {}, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The next round number above. */
function above(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((round) => round >= value);
}

export class Chart {
  /** lines: [{ name, colour }]; show(value) makes text of a value. */
  constructor(title, lines, { show = (value) => String(Math.round(value * 100) / 100), seconds = 300 } = {}) {
    Object.assign(this, { lines, show, seconds, top: 0, width: 460, last: [] });
    this.svg = s('svg', { class: 'chart', role: 'img', 'aria-label': title });
    this.grid = [0, .5, 1].map((part) => {
      const y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - part);
      this.svg.append(s('line', { class: 'axis', x1: LEFT, x2: '100%', y1: y, y2: y }));
      const text = s('text', { x: LEFT - 6, y: y + 4, 'text-anchor': 'end' });
      this.svg.append(text);
      return [part, text];
    });
    this.svg.append(s('text', { x: LEFT, y: HEIGHT - 2 }, `−${seconds / 60} min`), s('text', { x: '100%', y: HEIGHT - 2, 'text-anchor': 'end' }, 'now'));
    this.paths = lines.map((line) => { const path = s('path', { fill: 'none', 'stroke-width': 1.8 }); path.style.stroke = `var(--${line.colour})`; this.svg.append(path); return path; });
    this.legend = document.createElement('div');
    this.legend.className = 'legend';
    this.values = lines.map((line) => {
      const item = document.createElement('span'), mark = document.createElement('i'), value = document.createElement('span');
      mark.style.background = `var(--${line.colour})`;
      item.append(mark, `${line.name} `, value);
      this.legend.append(item);
      return value;
    });
    this.element = document.createElement('section');
    this.element.className = 'panel';
    const heading = document.createElement('h2');
    heading.textContent = title;
    this.element.append(heading, this.svg, this.legend);
    // Drawn in the pixels that there are, so that neither text nor lines are stretched.
    new ResizeObserver(([entry]) => { this.width = entry.contentRect.width || this.width; this.update(this.last); }).observe(this.svg);
  }

  /** One list of [ms, value] a line; values that are null leave a gap. */
  update(series, now = Date.now()) {
    this.last = series;
    const WIDTH = this.width;
    const from = now - this.seconds * 1_000;
    const seen = series.map((points) => points.filter(([at]) => at >= from));
    const highest = Math.max(0, ...seen.flat().map(([, value]) => value ?? 0));
    const top = above(highest);
    if (top > this.top || top < this.top / 4) this.top = top;
    this.grid.forEach(([part, text]) => { const said = this.show(this.top * part); if (text.textContent !== said) text.textContent = said; });
    seen.forEach((points, at) => {
      let path = '', pen = 'M';
      for (const [ms, value] of points) {
        if (value === null || value === undefined || Number.isNaN(value)) { pen = 'M'; continue; }
        const x = LEFT + (WIDTH - LEFT) * (ms - from) / (this.seconds * 1_000);
        const y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - Math.min(value, this.top) / this.top);
        path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
        pen = 'L';
      }
      this.paths[at].setAttribute('d', path);
      const last = points.at(-1)?.[1];
      this.values[at].textContent = last === undefined || last === null ? '–' : this.show(last);
    });
  }
}
