// Rules every page of the console must keep; returns what breaks them.
() => {
  const seen = e => e.getClientRects().length > 0 && getComputedStyle(e).visibility !== 'hidden';
  const all = wanted => [...document.querySelectorAll(wanted)].filter(seen);
  const say = e => e.outerHTML.slice(0, 120);
  const name = e => (e.getAttribute('aria-label') || [...(e.labels || [])].map(l => l.textContent).join(' ') || e.textContent || '').trim();
  const broken = [];
  for (const e of all('a, button, input, select, textarea, summary')) if (!name(e)) broken.push('no name: ' + say(e));
  for (const e of all('[role=img]')) if (!e.getAttribute('aria-label')) broken.push('no words: ' + say(e));
  for (const e of document.images) if (!e.hasAttribute('alt')) broken.push('no alt: ' + say(e));
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  if (new Set(ids).size < ids.length) broken.push('an id twice');
  for (const e of document.querySelectorAll('[aria-describedby], [aria-controls]'))
    for (const id of (e.getAttribute('aria-describedby') || e.getAttribute('aria-controls')).split(' '))
      if (!document.getElementById(id)) broken.push('points nowhere: ' + say(e));
  if (all('h1').length !== 1) broken.push('not one heading');
  if (all('main').length !== 1) broken.push('not one main');
  if (!document.documentElement.lang || !document.title) broken.push('no language or title');
  for (const e of all('table')) if (!e.caption || !e.tHead) broken.push('a table without caption or head');
  for (const e of all('[tabindex]')) if (Number(e.getAttribute('tabindex')) > 0) broken.push('a tab order of its own: ' + say(e));
  for (const e of all('button, select, input:not([type=checkbox]), .tick, nav a'))
    if (e.getBoundingClientRect().height < 24 && !e.classList.contains('skip')) broken.push('too small: ' + say(e));
  const parts = c => (c.match(/[0-9.]+/g) || []).map(Number);
  const light = c => { const v = c.slice(0, 3).map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const ground = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  for (const e of all('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('.unseen, :disabled, option, noscript') || e instanceof SVGElement) continue;
    const a = light(parts(getComputedStyle(e).color)), b = light(ground(e));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) broken.push('contrast ' + contrast.toFixed(2) + ': ' + say(e));
  }
  if (document.documentElement.scrollWidth > innerWidth) broken.push('wider than the window: ' + document.documentElement.scrollWidth);
  if (/\b(undefined|NaN|\[object)/.test(document.querySelector('main').innerText)) broken.push('a value that is none');
  const raw = document.body.innerText.match(/\b(page|lead|over|try|why|item|cohort|health|models|privacy|audit|size|event|did)\.[a-z]+\b/);
  if (raw) broken.push('words are lacking: ' + raw[0]);
  return broken;
}
