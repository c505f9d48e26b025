// The inspector's page. Whatever comes from the cache becomes text nodes, never markup.

const base = new URL(".", location.origin + location.pathname);
const token = document.querySelector('meta[name="inspector-token"]').content;
const find = id => document.getElementById(id);
const SECONDS = 120, ROWS = 200, PAGE = 25, ALIKE = 3, REST = 600;

// -- small tools ------------------------------------------------------------------------------------

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

const cell = (text, kind = "") => make("td", { className: kind }, text instanceof Node ? text : String(text));
const rowOf = (...cells) => make("tr", {}, ...cells);
// The row under the focus stays, with new numbers: somebody may be there with the keyboard.
function fill(table, rows) {
  const body = find(table).tBodies[0], focus = document.activeElement;
  if (!body.contains(focus)) { body.replaceChildren(...rows); return; }
  const kept = focus.closest("tr"), at = rows.findIndex(row => row.cells[0].textContent === kept.cells[0].textContent);
  for (const row of [...body.rows]) if (row !== kept) row.remove();
  kept.before(...rows.slice(0, Math.max(at, 0)));
  kept.after(...rows.slice(at + 1));
  if (at < 0) return;
  [...rows[at].cells].forEach((fresh, index) => { if (!kept.cells[index].contains(focus)) kept.cells[index].replaceWith(fresh); });
}
const write = (id, text) => { const element = find(id); if (element.textContent !== text) element.textContent = text; };

const count = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const number = value => value === null || value === undefined ? "–" : Math.abs(value) < 100000 ? count.format(value) : short.format(value);

function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (value >= 1024 && power < units.length - 1) { value /= 1024; power += 1; }
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const sign = seconds < 0 ? "−" : "";
  const value = Math.abs(seconds);
  if (value === 0) return "0 s";
  if (value < 0.0005) return "under 1 ms";
  if (value < 1) return `${sign}${Math.round(value * 1000)} ms`;
  if (value < 60) return `${sign}${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 3600) return `${sign}${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value < 172800) return `${sign}${Math.floor(value / 3600)} h ${Math.round(value % 3600 / 60)} min`;
  return `${sign}${Math.round(value / 86400)} d`;
}

const percent = (part, whole) => {
  if (!whole) return "–";
  const share = 100 * part / whole;
  return `${share === 0 || share === 100 ? share : share > 99 ? Math.min(share, 99.99).toFixed(2) : share.toFixed(1)} %`;
};
const clock = epoch => new Date(epoch * 1000).toLocaleTimeString("en-GB");
const say = text => write("said", text);

// What the answer is where it is not JSON: a proxy's page, or a sign-in.
async function api(path, options = {}) {
  const answer = await fetch(new URL(path, base), { cache: "no-store", credentials: "same-origin", redirect: "error", ...options });
  let told;
  try { told = await answer.json(); } catch { told = {}; }
  if (!answer.ok) {
    const error = new Error(told.error || told.detail || `the app answered ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return told;
}

function mix(hits, stale, misses) {
  const whole = hits + stale + misses;
  const bar = make("div", { className: "mix", role: "img", "aria-label": `${percent(hits, whole)} hits, ${percent(stale, whole)} stale, ${percent(misses, whole)} misses` });
  for (const [kind, value] of [["hit", hits], ["stale", stale], ["miss", misses]]) {
    if (!value) continue;
    const part = make("i", { className: kind });
    part.style.width = `${100 * value / whole}%`;
    bar.append(part);
  }
  return bar;
}

// -- now --------------------------------------------------------------------------------------------

const past = [];
let state = null;

function showState(now) {
  const before = state;
  state = now;
  const answered = now.hits + now.stale + now.misses + now.collapsed;
  write("identity", [`namespace ${now.namespace}`, now.replica && `replica ${now.replica}`, now.alone ? "this process only" : `staleness bound ${duration(now.staleness_bound)}`].filter(Boolean).join(" · "));
  write("ratio", percent(now.hits + now.stale + now.collapsed, answered));
  write("ratio-of", `${number(answered)} requests since the start of this process`);
  find("shadow").hidden = !now.shadow_said;
  if (now.shadow_said) {
    const differing = Object.entries(now.shadow.different_by_route).map(([route, times]) => `${route} ${number(times)}`);
    write("shadow", [`Made again: ${now.shadow_said}`, differing.length ? `different: ${differing.slice(0, 5).join(", ")}` : ""].filter(Boolean).join("; "));
    find("shadow").className = now.shadow.different ? "small warn" : "small";
  }
  write("saved", duration(now.saved_seconds));
  write("memory", bytes(now.size_bytes));
  find("memory-bar").value = now.size_bytes / now.max_bytes;
  write("memory-of", `${number(now.responses)} stored, of ${bytes(now.max_bytes)}`);
  write("forwards", number(now.forwards_under_way));
  write("forwards-of", `under way; ${number(now.waiting)} waiting, ${number(now.refreshing)} refreshing`);
  write("purges", number(now.purges.published || 0));
  const queued = now.queue_length ? `${number(now.queue_length)} queued for ${duration(now.queue_age)}` : "none queued";
  write("purges-of", `${queued}, ${number(now.fences)} held back`);
  write("log", now.alone ? "local" : `${number(now.applied)}`);
  write("log-of", now.alone ? "no other replicas" : `${number(now.lag)} behind, lease ${duration(Math.max(0, now.lease_remaining))}`);
  if (before && now.at > before.at) {
    const span = now.at - before.at;
    const rate = (...names) => names.reduce((sum, name) => sum + Math.max(0, now[name] - before[name]), 0) / span;
    past.push({ hit: rate("hits", "collapsed"), stale: rate("stale"), miss: rate("misses"), bypass: rate("bypassed") });
    if (past.length > SECONDS) past.shift();
    const last = past.slice(-5);
    const recent = last.reduce((sum, each) => sum + each.hit + each.stale + each.miss + each.bypass, 0) / last.length;
    write("rate", recent >= 100 ? number(Math.round(recent)) : recent.toFixed(1));
    write("rate-of", `a second; ${number(now.bypassed)} were not cached`);
    drawChart();
    for (const [outcome, total] of Object.entries(now.refreshes)) {
      const more = total - (before.refreshes[outcome] || 0);
      if (more > 0) event({ kind: "refresh", at: now.at, count: more, outcome });
    }
  }
  showSources(now.sources);
  showConnection(now);
}

function drawChart() {
  const svg = find("chart"), width = 480, height = 120, step = width / SECONDS;
  const peak = Math.max(1, ...past.map(each => each.hit + each.stale + each.miss));
  write("chart-peak", `highest ${peak >= 10 ? number(Math.round(peak)) : peak.toFixed(1)} a second`);
  const bars = [];
  past.forEach((each, index) => {
    let top = height;
    for (const kind of ["miss", "stale", "hit"]) {
      const tall = each[kind] / peak * (height - 4);
      if (tall <= 0) continue;
      top -= tall;
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      bar.setAttribute("class", kind);
      bar.setAttribute("x", (width - (past.length - index) * step).toFixed(2));
      bar.setAttribute("y", top.toFixed(2));
      bar.setAttribute("width", (step * 0.82).toFixed(2));
      bar.setAttribute("height", tall.toFixed(2));
      bars.push(bar);
    }
  });
  svg.replaceChildren(find("chart-title"), ...bars);
}

// -- whether all is in touch ------------------------------------------------------------------------

let away = null, lost = null, bannerFor = 0;

function banner(kind, title, text, forSeconds = 0) {
  clearTimeout(bannerFor);
  const box = find("banner");
  write("banner-title", title);
  write("banner-text", text);
  box.className = kind;
  box.hidden = !title;
  if (forSeconds) bannerFor = setTimeout(() => { box.hidden = true; }, forSeconds * 1000);
}

function pill(kind, text) {
  document.title = kind === "bad" ? `${text} · Cache inspector` : "Cache inspector";
  find("link").className = `pill ${kind}`;
  write("link-text", text);
}

function showConnection(now) {
  if (lost !== null) {
    banner("good", "The app answers again.", `It was out of reach for ${duration((Date.now() - lost) / 1000)}.`, 8);
    lost = null;
  }
  if (!now.connected) {
    if (away === null) {
      away = Date.now();
      banner("bad", "Redis is away.", now.while_away);
    }
    pill("bad", `Redis is away since ${clock(away / 1000)}`);
    return;
  }
  if (away !== null) {
    const gone = duration((Date.now() - away) / 1000);
    away = null;
    banner("good", "Redis is back.", `It was away for ${gone}. Queued purges are delivered.`, 20);
  }
  if (!now.enabled) pill("bad", "Switched off: every request is forwarded");
  else pill("good", now.alone ? "In this process" : "In touch with Redis");
}

function outOfTouch(why) {
  if (lost === null) lost = Date.now();
  pill("bad", "The app does not answer");
  banner("bad", "The app does not answer.", why);
}

// -- live -------------------------------------------------------------------------------------------

const KINDS = { hit: "Hit", stale: "Stale", miss: "Miss", collapsed: "Collapsed", bypass: "Not cached", refresh: "Refresh", purge: "Purge", outage: "Redis", reset: "Reset" };
const CHIP = { collapsed: "hit" };
let paused = false, missed = 0, unseen = 0;

function chips(names, more) {
  const box = document.createDocumentFragment();
  for (const name of names) box.append(make("span", { className: "tag" }, name));
  if (more) box.append(make("span", { className: "small" }, `and ${number(more)} more`));
  return box;
}

// A path as a button that has it explained.
function asked(path) {
  const button = make("button", { type: "button", className: "link", title: "Explain" }, path);
  button.addEventListener("click", () => {
    find("explain-url").value = path;
    find("explain").scrollIntoView();
    explain(path);
  });
  return button;
}

function what(told) {
  if (told.times) {
    const box = document.createDocumentFragment();
    box.append(told.route, " ", make("span", { className: "tag" }, `× ${number(told.times)}`));
    return box;
  }
  if (told.kind === "purge") return told.everything ? "everything" : chips([...told.tags, ...told.paths], told.more);
  if (told.kind === "outage") return told.connected ? "Redis is in touch" : "Redis is away";
  if (told.kind === "reset") return "everything was given up";
  if (told.kind === "refresh") return told.count === 1 ? "one in the background" : `${number(told.count)} in the background`;
  const box = document.createDocumentFragment();
  // What was cut, or hidden, is another page.
  box.append(/…$|\.\.\.$|\*\*\*/.test(told.path) ? told.path : asked(told.path));
  if (told.route !== `${told.method} ${told.path}`) box.append(" ", make("span", { className: "small" }, told.route));
  return box;
}

function why(told) {
  if (told.times) return told.kind === "hit" ? "" : told.status.replace(/^cacheinval; */, "");
  const parts = [];
  if (told.kind === "purge") {
    if (told.soft) parts.push("soft");
    if (told.own) parts.push(told.by ? `by ${told.by}` : "made here");
    else parts.push(told.by ? `from ${told.by}` : "from another process", told.delay === null ? "" : `applied after ${duration(told.delay)}`);
    parts.push(`line ${told.seq}`);
    if (told.trace) parts.push(`trace ${told.trace.split("-")[1] || told.trace}`);
  } else if (told.kind === "outage" || told.kind === "reset") parts.push(told.cause);
  else if (told.kind === "refresh") parts.push(told.outcome);
  else parts.push(told.status.replace(/^cacheinval; */, ""), duration(told.seconds));
  return parts.filter(Boolean).join(", ");
}

// Rows that a narrow screen lays out one below the other stay rows for those who do not see them.
function event(told) {
  if (paused) { unseen += 1; write("pause", `Go on (${number(unseen)})`); return; }
  const kind = told.kind in KINDS ? told.kind : "bypass";
  const row = rowOf(cell(clock(told.at), "time"), cell(make("span", { className: `kind ${kind}` }, KINDS[kind])), cell(what(told), "name"), cell(why(told), "why"));
  row.setAttribute("role", "row");
  for (const each of row.cells) each.setAttribute("role", "cell");
  row.dataset.kind = CHIP[kind] || kind;
  row.hidden = !chosen(row.dataset.kind);
  const body = find("events").tBodies[0];
  body.prepend(row);
  while (body.rows.length > ROWS) body.deleteRow(-1);
  find("events-empty").hidden = true;
}

function chosen(kind) {
  const chip = find("live-filters").elements[kind];
  return !chip || chip.checked;
}

// Of very many alike at once one line is told, with how many there were.
function gathered(events) {
  const alike = new Map();
  for (const each of events) {
    const name = `${each.kind} ${each.route}`;
    if (each.route) alike.set(name, (alike.get(name) || 0) + 1);
  }
  const told = new Set();
  return events.flatMap(each => {
    const name = `${each.kind} ${each.route}`, times = alike.get(name);
    if (!times || times <= ALIKE) return [each];
    if (told.has(name)) return [];
    told.add(name);
    return [{ ...each, times }];
  });
}

function showFeed({ events, dropped }) {
  for (const each of gathered(events)) event(each);
  const purges = events.filter(each => each.kind === "purge");
  if (purges.length) say(purges.length === 1 ? `Purged: ${purges[0].everything ? "everything" : [...purges[0].tags, ...purges[0].paths].slice(0, 5).join(", ")}` : `${purges.length} purges`);
  if (dropped) {
    missed += dropped;
    find("live-dropped").hidden = false;
    write("live-dropped", `${number(missed)} more happened than could be listed.`);
  }
  if (purges.length) soon();
}

find("live-filters").addEventListener("change", () => {
  for (const row of find("events").tBodies[0].rows) row.hidden = !chosen(row.dataset.kind);
});
find("pause").addEventListener("click", () => {
  paused = !paused;
  unseen = 0;
  find("pause").setAttribute("aria-pressed", String(paused));
  write("pause", paused ? "Go on" : "Pause");
});

// -- routes -----------------------------------------------------------------------------------------

const routes = { sort: "requests", offset: 0, q: "" };

const open = new Set();
const SHARED = { everyone: "everyone gets the same", partition: "kept apart by caller", guarded: "everyone who passes its guards", declared: "everyone, by the author's word", nobody: "nobody" };

function pair(list, term, value) {
  if (value === "" || value === null || value === undefined || (Array.isArray(value) && !value.length)) return;
  list.append(make("dt", {}, term), make("dd", {}, Array.isArray(value) ? chips(value, 0) : value));
}

// What the declarations of a route say, in a row of its own below it.
function declaredRow(each) {
  const said = each.declared, list = make("dl");
  if (!said) list.append(make("dt", {}, "Declared"), make("dd", {}, "No policy of its own is known."));
  else {
    pair(list, "Shared by", `${SHARED[said.shared_by] || said.shared_by}: ${said.why}`);
    pair(list, "Kept apart by", said.partition_by);
    pair(list, "Guarded by", said.guarded_by);
    pair(list, "Fresh for", [duration(said.ttl), said.stale_while_revalidate ? `stale while a new one is fetched ${duration(said.stale_while_revalidate)}` : "", said.stale_if_error ? `stale after an error ${duration(said.stale_if_error)}` : ""].filter(Boolean).join(", "));
    pair(list, "Key", said.key);
    pair(list, "Tags", said.adds_tags ? [...said.tags, "and more while answering"] : said.tags);
    pair(list, "Purged by", said.purged_by.length ? said.purged_by : "no mutation");
    pair(list, "Answered", said.lookup === "front" ? "before routing" : `at the route${said.front_off ? `: ${said.front_off}` : ""}`);
  }
  const row = rowOf(make("td", { colSpan: 8 }, list));
  row.className = "more";
  return row;
}

function routeRows(each) {
  const hits = each.hits + each.collapsed, whole = hits + each.stale + each.misses;
  const button = make("button", { type: "button", className: "link fold" }, each.route);
  button.setAttribute("aria-expanded", String(open.has(each.route)));
  const row = rowOf(cell(button, "name"), cell(number(each.requests), "n"), cell(mix(hits, each.stale, each.misses), "ratio"), cell(percent(hits + each.stale, whole), "n"),
    cell(each.saved_seconds ? duration(each.saved_seconds) : "–", "n"), cell(bytes(each.size_bytes), "n"), cell(number(each.responses), "n"), cell(number(each.errors), each.errors ? "n bad" : "n"));
  button.addEventListener("click", () => {
    const shown = open.has(each.route);
    if (shown) { open.delete(each.route); row.nextElementSibling.remove(); } else { open.add(each.route); row.after(declaredRow(each)); }
    button.setAttribute("aria-expanded", String(!shown));
  });
  return open.has(each.route) ? [row, declaredRow(each)] : [row];
}

async function showRoutes() {
  const told = await api(`api/routes?${new URLSearchParams({ ...routes, limit: PAGE })}`);
  if (told.offset && !told.routes.length) { routes.offset = 0; return showRoutes(); }
  fill("routes-table", told.routes.flatMap(routeRows));
  write("routes-empty", told.all ? "No route contains that." : "No cached route is known.");
  find("routes-empty").hidden = told.routes.length > 0;
  find("routes-pager").hidden = told.matching <= PAGE;
  write("routes-place", `${number(told.offset + 1)} to ${number(told.offset + told.routes.length)} of ${number(told.matching)}`);
  const [back, on] = find("routes-pager").querySelectorAll("button");
  back.disabled = told.offset === 0;
  on.disabled = told.offset + told.routes.length >= told.matching;
  for (const head of find("routes-table").querySelectorAll("th[data-sort]")) {
    if (head.dataset.sort === routes.sort) head.setAttribute("aria-sort", "descending");
    else head.removeAttribute("aria-sort");
  }
  const holes = told.holes.length + told.more_holes;
  find("holes").hidden = !holes;
  write("holes-title", holes === 1 ? "One hole in what purges what" : `${number(holes)} holes in what purges what`);
  if ([...find("holes-list").children].some((each, at) => each.textContent !== told.holes[at]) || find("holes-list").childElementCount !== told.holes.length) find("holes-list").replaceChildren(...told.holes.map(hole => make("li", {}, hole)));
}

find("routes-table").tHead.addEventListener("click", pressed => {
  const head = pressed.target.closest("th[data-sort]");
  if (!head) return;
  Object.assign(routes, { sort: head.dataset.sort, offset: 0 });
  quietly(showRoutes);
});
find("routes-pager").addEventListener("click", pressed => {
  const button = pressed.target.closest("button");
  if (!button) return;
  routes.offset = Math.max(0, routes.offset + PAGE * Number(button.dataset.step));
  quietly(showRoutes);
});
find("routes-filter").addEventListener("input", () => {
  Object.assign(routes, { q: find("routes-filter").value, offset: 0 });
  quietly(showRoutes);
});
find("routes-filter").form.addEventListener("submit", sent => sent.preventDefault());

// -- what is stored ---------------------------------------------------------------------------------

let searched = "";

function pageRow(each) {
  const path = make("td", { className: "name" }, each.path ? asked(each.path) : each.route || each.key);
  return rowOf(path, cell(number(each.uses), "n"), cell(bytes(each.size_bytes), "n"), cell(duration(each.age), "n"),
    cell(each.fresh > 0 ? duration(each.fresh) : "stale", each.fresh > 0 ? "n" : "n warn"));
}

function tagRow(tag, uses, responses, size) {
  const button = make("button", { type: "button" }, "Purge…");
  button.setAttribute("aria-label", `Purge the tag ${tag}`);
  button.addEventListener("click", () => ask({ tags: [tag], soft: false }));
  return rowOf(cell(tag, "name"), cell(uses, "n"), cell(responses, "n"), cell(size, "n"), cell(button, "n"));
}

async function showHot() {
  if (searched) return;
  const told = await api("api/contents");
  if (searched) return;
  fill("hot-pages", told.pages.slice(0, 12).map(pageRow));
  fill("hot-tags", told.hot_tags.slice(0, 12).map(each => tagRow(each.tag, number(each.uses), number(each.responses), bytes(each.size_bytes))));
  const part = told.looked_at < told.responses ? `, of which ${number(told.looked_at)} were looked at` : "";
  write("hot-of", told.responses ? `${number(told.responses)} kept in this process${part}, under ${number(told.tags)} tags` : "");
}

find("search").addEventListener("submit", async sent => {
  sent.preventDefault();
  searched = find("search").elements.q.value;
  find("search-clear").hidden = false;
  try {
    const told = await api(`api/search?${new URLSearchParams({ q: searched })}`);
    fill("hot-pages", told.pages.map(pageRow));
    fill("hot-tags", told.tags.map(tag => tagRow(tag, "–", "–", "–")));
    write("hot-of", `${number(told.pages.length)} stored responses and ${number(told.tags.length)} tags contain “${searched}”${told.complete ? "" : "; there are more"}`);
  } catch (error) { write("hot-of", `Not found out: ${error.message}`); }
});
find("search-clear").addEventListener("click", () => {
  searched = "";
  find("search").reset();
  find("search-clear").hidden = true;
  quietly(showHot);
});

// -- explain ----------------------------------------------------------------------------------------

const WOULD = { hit: "A request now would be a hit.", stale: "A request now would get the stale response.", collapsed: "A request now would wait for one that is under way.", miss: "A request now would be a miss.", bypass: "A request now would not be cached.", unknown: "What a request would get depends on the caller." };

function copyOf(each) {
  const box = document.createDocumentFragment();
  box.append(make("strong", {}, each.tier.toUpperCase()), `: status ${each.status}, ${bytes(each.size_bytes)}, stored at ${clock(each.since)}, ${duration(each.age)} ago. `);
  box.append(!each.usable ? make("span", { className: "bad" }, "It may not be used any more.") : each.ttl > 0 ? make("span", { className: "good" }, `Fresh for ${duration(each.ttl)} more.`) : make("span", { className: "warn" }, `Stale for ${duration(-each.ttl)}.`));
  if (each.variant.length) box.append(` Selected by ${each.variant.join(", ")}.`);
  if (each.trace) box.append(` Filled on trace ${each.trace.split("-")[1] || each.trace}.`);
  return make("div", {}, box);
}

function purgeOf(purge) {
  if (!purge) return "None is remembered.";
  const box = document.createDocumentFragment();
  box.append(`${clock(purge.at)}, ${why(purge)}: `, purge.everything ? "everything" : chips([...purge.tags, ...purge.paths], purge.more));
  return box;
}

function explanation(told) {
  const list = make("dl"), box = document.createDocumentFragment();
  const kind = told.result in KINDS ? told.result : "bypass";
  box.append(make("p", { className: "verdict" }, make("span", { className: `kind ${kind}` }, WOULD[told.result] || told.result)), make("p", {}, told.because));
  pair(list, "Page", make("code", {}, `${told.method} ${told.path}`));
  pair(list, "Route", told.route ? make("code", {}, told.route) : "No route of this app answers it.");
  if (told.shared_by) pair(list, "Shared by", `${SHARED[told.shared_by] || told.shared_by}: ${told.why}`);
  if (told.lookup) pair(list, "Answered", told.lookup === "front" ? "before routing" : `at the route${told.front_off ? `: ${told.front_off}` : ""}`);
  pair(list, "Cache-Status", told.cache_status ? make("code", {}, told.cache_status) : "");
  if (told.stored.length) { list.append(make("dt", {}, "Stored")); list.append(make("dd", {}, ...told.stored.map(copyOf))); }
  else pair(list, "Stored", told.route ? "Nothing." : "");
  pair(list, "Tags", told.tags.length ? chips(told.tags, told.more) : "");
  pair(list, "Last purge", told.route ? purgeOf(told.last_purge) : "");
  pair(list, "Key", told.key_parts);
  pair(list, "Digest of the key", told.key ? make("code", {}, told.key) : "");
  pair(list, "Not known", told.unknown);
  box.append(list);
  if (told.stored.length) {
    const button = make("button", { type: "button", className: "danger" }, "Purge this page…");
    button.addEventListener("click", () => ask({ url: told.path, soft: false }));
    box.append(make("div", { className: "buttons start" }, button));
  }
  return box;
}

async function explain(url) {
  const answer = find("explain-answer");
  try {
    answer.replaceChildren(explanation(await api(`api/explain?${new URLSearchParams({ url })}`)));
  } catch (error) {
    answer.replaceChildren(make("p", { className: "bad" }, `Not explained: ${error.message}`));
  }
}

find("explain-form").addEventListener("submit", sent => {
  sent.preventDefault();
  explain(find("explain-url").value.trim());
});

// -- purge ------------------------------------------------------------------------------------------

const WORDS = {
  tags: ["Tags, with spaces between", "product:42 products"],
  url: ["A path or URL: all its queries and variants", "/products/42"],
};

find("purge-form").addEventListener("change", () => {
  const way = find("purge-form").elements.way.value, words = WORDS[way];
  find("purge-what").hidden = find("purge-value").hidden = !words;
  find("purge-value").required = Boolean(words);
  if (!words) return;
  write("purge-what", words[0]);
  find("purge-value").placeholder = words[1];
});
find("purge-form").addEventListener("submit", sent => {
  sent.preventDefault();
  const way = find("purge-form").elements.way.value, value = find("purge-value").value.trim(), soft = find("purge-soft").checked;
  if (way === "everything") ask({ everything: true, soft });
  else if (way === "url") ask({ url: value, soft });
  else ask({ tags: value.split(/\s+/).filter(Boolean), soft });
});

function ask(purge) {
  const what = purge.everything ? "everything that is stored under this namespace, on every replica"
    : purge.url ? `everything stored of ${purge.url}` : purge.tags.length === 1 ? `every response with the tag ${purge.tags[0]}` : `every response with one of ${purge.tags.length} tags: ${purge.tags.slice(0, 10).join(", ")}`;
  write("confirm-title", purge.soft ? "Make it stale?" : "Purge?");
  write("confirm-text", `This ${purge.soft ? "makes stale" : "purges"} ${what}.`);
  write("confirm-note", purge.soft ? "Old responses are served while new ones are fetched." : "The next request for each of them is answered by the app.");
  const dialog = find("confirm");
  dialog.returnValue = "no";
  dialog.addEventListener("close", () => { if (dialog.returnValue === "yes") purgeNow(purge); }, { once: true });
  dialog.showModal();
}

async function purgeNow(purge) {
  const answer = find("purge-answer");
  answer.className = "";
  write("purge-answer", "Purging…");
  try {
    const told = await api("api/purge", { method: "POST", body: JSON.stringify(purge), headers: { "Content-Type": "application/json", "X-Cacheinval-Inspector": token } });
    if (told.became === "done") {
      answer.className = "good";
      const where = told.replicas ? ` ${told.replicas === 1 ? "One replica has" : `All ${told.replicas} replicas have`} applied it, in ${duration(told.seconds)}.` : "";
      write("purge-answer", `Done: line ${told.seq} of the log.${where}`);
    } else if (told.became === "queued") {
      answer.className = "warn";
      write("purge-answer", `Queued: Redis cannot be reached. This replica obeys it now, the others when Redis is back (${told.why}).`);
    } else {
      answer.className = "warn";
      write("purge-answer", `Written as line ${told.seq} of the log. Whether every replica has applied it is not known (${told.why}).`);
    }
  } catch (error) {
    answer.className = "bad";
    write("purge-answer", `Not purged: ${error.message}`);
  }
  say(answer.textContent);
  soon();
}

// -- replicas ---------------------------------------------------------------------------------------

async function showReplicas() {
  const told = await api("api/replicas");
  fill("replicas-table", told.replicas.map(each => {
    const name = make("td", { className: "name" }, each.name);
    if (each.here) name.append(" ", make("span", { className: "tag" }, "this one"));
    if (each.release) name.append(" ", make("span", { className: "small" }, each.release));
    const state = each.live === null ? ["not known", "warn"] : each.live ? (each.connected === false ? ["out of touch", "bad"] : ["in touch", "good"]) : each.silent === null && !each.here ? ["gone", "small"] : ["no lease", "bad"];
    return rowOf(name, cell(state[0], state[1]), cell(number(each.applied), "n"), cell(number(each.lag), each.lag ? "n warn" : "n"), cell(each.lease === null ? "–" : duration(each.lease), each.live === false ? "n bad" : "n"),
      cell(number(each.queue_length), each.queue_length ? "n bad" : "n"), cell(number(each.waiting), "n"), cell(number(each.requests), "n"), cell(percent(each.answered, each.requests), "n"), cell(bytes(each.size_bytes), "n"));
  }));
  const log = told.log ? `The log is at line ${number(told.log.seq)} of term ${number(told.log.term)}; ${number(told.log.tags)} tags are remembered as purged.` : "";
  write("replicas-of", told.why ? `Redis cannot be asked for the others: ${told.why}` : [log, told.more ? `${number(told.more)} more replicas are not listed.` : "", "What others tell of themselves is a few seconds old."].filter(Boolean).join(" "));
}

// -- sources ----------------------------------------------------------------------------------------

function showSources(sources) {
  const rows = Object.entries(sources).map(([name, each]) => {
    if (each === null || typeof each !== "object") return rowOf(cell(name, "name"), cell(each), cell(""), cell(""), cell(""), cell(""), cell(""), cell(""), cell(""));
    const well = each.running && each.connected;
    return rowOf(cell(name, "name"), cell(well ? "in touch" : each.running ? "out of touch" : "stopped", well ? "good" : "bad"), cell(number(each.received), "n"), cell(number(each.done), "n"),
      cell(number(each.waiting), "n"), cell(number(each.lag), "n"), cell(number(each.refused), "n"), cell(number(each.failures), "n"), cell(each.trouble, "why"));
  });
  fill("sources-table", rows);
  find("sources-empty").hidden = rows.length > 0;
}

// -- when -------------------------------------------------------------------------------------------

async function quietly(work) {
  try { await work(); } catch (error) { console.debug(error); }
}

let due = 0;
function soon() {
  clearTimeout(due);
  due = setTimeout(refresh, 400);
}
async function refresh() {
  clearTimeout(due);
  if (!document.hidden && lost === null) for (const work of [showRoutes, showHot, showReplicas]) await quietly(work);
  due = setTimeout(refresh, 3000);
}
document.addEventListener("visibilitychange", soon);

// A page that nobody looks at for long lets go of its stream, for which every request has to make an event.
let stream = null, resting = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  if (document.hidden) resting = setTimeout(() => { stream.close(); stream = null; }, REST * 1000);
  else if (stream === null) listen();
});

// Whether the app is away, or will not have us any longer: a stream does not say.
async function whyLost() {
  try {
    showState(await api("api/state"));
  } catch (error) {
    if (error.status === 401 || error.status === 403) outOfTouch("You may no longer see this page: load it again, and sign in.");
    else outOfTouch(error.status ? `It says: ${error.message}.` : "This page tries again until it does.");
  }
}

function listen() {
  stream = new EventSource(new URL("api/events", base));
  const mine = stream;
  let renewed = false;
  stream.addEventListener("state", told => { renewed = false; showState(JSON.parse(told.data)); });
  stream.addEventListener("feed", told => showFeed(JSON.parse(told.data)));
  stream.addEventListener("renew", () => { renewed = true; });
  stream.addEventListener("error", () => {
    if (!renewed) whyLost();
    renewed = false;
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => { if (stream === mine) listen(); }, 3000);
  });
}

const links = [...document.querySelectorAll("nav a")];
const seen = new IntersectionObserver(entries => {
  for (const entry of entries) entry.target.dataset.seen = entry.isIntersecting ? "1" : "";
  const first = links.find(link => document.querySelector(link.hash).dataset.seen);
  for (const link of links) if (link === first) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
}, { rootMargin: "-15% 0px -55% 0px" });
for (const link of links) seen.observe(document.querySelector(link.hash));

listen();
refresh();
