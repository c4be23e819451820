// Makes the page out of a report: headline, targets, limits, and for each scenario a table and its charts.
const report = JSON.parse(document.getElementById("data").textContent);
const compare = report.compare || null;
const main = document.getElementById("main");

const number = (value, digits) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const short = (value) => (value >= 100 ? number(value, 0) : value >= 10 ? number(value, 1) : number(value, 2));
const plain = (value) => String(Number(value.toPrecision(3)));
function showUs(us) {
  if (us === null || us === undefined) return "–";
  if (us >= 1e6) return `${plain(us / 1e6)} s`;
  return us >= 1e3 ? `${plain(us / 1e3)} ms` : `${plain(us)} µs`;
}
function showBytes(bytes) {
  for (const [size, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (bytes >= size) return `${plain(bytes / size)} ${unit}`;
  }
  return `${plain(bytes)} B`;
}
function showCount(count) {
  if (count >= 1e6) return `${plain(count / 1e6)} M`;
  return count >= 1e4 ? `${plain(count / 1e3)} k` : number(count, 0);
}
// Both ends with one unit where they share it.
function showRange(low, high, show) {
  const [a, b] = [show(low), show(high)];
  const unit = a.slice(a.lastIndexOf(" "));
  return a.includes(" ") && b.endsWith(unit) ? `${a.slice(0, -unit.length)}–${b}` : `${a}–${b}`;
}
const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

// Every broker has one colour on the whole page, in the order in which brokers were named.
const names = [...new Set([
  ...((compare && compare.variants) || []).map((variant) => variant.name),
  ...report.scenarios.flatMap((scenario) => scenario.runs.map((run) => run.broker)),
])];
const color = (name) => `var(--c${names.indexOf(name) % 6})`;
const labels = Object.fromEntries(((compare && compare.variants) || []).map((variant) => [variant.name, variant.label]));
const label = (name) => labels[name] || name;

function key(name, parent, text) {
  const made = element("span", { class: "key", style: `color:${color(name)}` }, parent);
  element("i", {}, made);
  element("span", { style: "color:var(--ink)", text: text || label(name) }, made);
  return made;
}

function head() {
  const both = names.length > 1;
  element("h1", { text: compare ? "Millrace and Apache Kafka, side by side" : both ? names.map(label).join(" and ") : "Millrace measured" }, main);
  const facts = [report.machine.cpu_model, `${report.machine.cpus} cores`, showBytes(report.machine.memory_bytes), `Linux ${report.machine.kernel}`];
  facts.push(new Date(report.unix_ms).toISOString().slice(0, 16).replace("T", " ") + " UTC");
  if (compare) {
    if (compare.commit) facts.push(`commit ${compare.commit}`);
    facts.push(`${compare.rounds} round${compare.rounds === 1 ? "" : "s"}${compare.quick ? ", quick: figures only indicate" : ""}`);
    if (compare.load_average_before > 1) facts.push(`the machine was busy (load average ${short(compare.load_average_before)}): figures only indicate`);
  }
  element("div", { class: "facts", text: facts.filter(Boolean).join(" · ") }, main);
  if (compare && compare.method) element("p", { class: "soft small", text: compare.method }, main);
  const legend = element("div", { class: "legend" }, main);
  for (const name of names) {
    const variant = ((compare && compare.variants) || []).find((one) => one.name === name);
    key(name, legend, variant ? `${variant.label}: ${variant.what}` : label(name));
  }
  if (report.scenarios.length > 2) {
    const nav = element("nav", {}, main);
    for (const scenario of report.scenarios) element("a", { href: `#${scenario.name}`, text: scenario.name }, nav);
  }
}

const WORDS = { reached: "reached", missed: "not reached", undecided: "undecided", unmeasured: "not measured" };

function targets() {
  if (!compare || !compare.targets || compare.targets.length === 0) return;
  const card = element("section", { class: "card" }, main);
  element("h2", { text: "What was to be reached" }, card);
  element("p", { class: "soft small", text: "Medians of the rounds; in brackets the interval that holds 95 % of what a bootstrap over the rounds gives. Below seven rounds nothing counts as decided." }, card);
  const tiles = element("div", { class: "tiles" }, card);
  const order = ["reached", "missed", "undecided"];
  for (const target of compare.targets.filter((one) => order.includes(one.verdict))) {
    const tile = element("div", { class: "tile" }, tiles);
    element("div", { class: "work", text: target.work }, tile);
    element("div", { class: "big", text: target.ratio === null ? "–" : `${short(target.ratio)}${target.unit}` }, tile);
    const interval = target.low === null ? "" : ` [${short(target.low)} – ${short(target.high)}]`;
    element("div", { class: "to", text: `${target.against}; wanted ${target.wanted}${interval}` }, tile);
    element("span", { class: `chip ${target.verdict}`, text: WORDS[target.verdict] }, tile);
  }
  const rest = compare.targets.filter((one) => one.verdict === "unmeasured");
  if (rest.length) element("p", { class: "soft small", text: `Not measured in this run: ${rest.map((one) => `${one.work} (${one.against})`).join("; ")}.` }, card);
}

function limits() {
  const measured = compare && compare.limits;
  if (!measured) return;
  const card = element("section", { class: "card" }, main);
  element("h2", { text: "What this machine can do at most" }, card);
  const table = element("table", {}, element("div", { class: "scroll" }, card));
  const row = (name, value) => { const tr = element("tr", {}, table); element("td", { text: name }, tr); element("td", { text: value }, tr); };
  row("Direct writes of 512 KiB, a flush each 8 MiB", `${short(measured.disk.sequential_mib_per_second)} MiB/s`);
  row("Loopback received and checksummed (CRC-32C) on one core", `${short(measured.loopback.mib_per_second)} MiB/s, ${short(measured.loopback.receiver_cpu_seconds_per_gib)} CPU s/GiB`);
  row("Durable write of 4 KiB: p50, p99", `${showUs(measured.disk.small_durable_write.p50_us)}, ${showUs(measured.disk.small_durable_write.p99_us)}`);
  row("Flush after 8 MiB: p50, p99", `${showUs(measured.disk.group_flush.p50_us)}, ${showUs(measured.disk.group_flush.p99_us)}`);
}

// What a run is judged by: [name, unit, value of a run, how to write it, whether less is better].
const outcome = (run) => run.result.produced || run.result.consumed;
const latency = (run) => run.result.end_to_end || outcome(run).latency;
const METRICS = [
  ["Throughput", "MiB/s", (run) => outcome(run).mib_per_second, short, false],
  ["Records", "1/s", (run) => outcome(run).records_per_second, showCount, false],
  ["p50", "", (run) => latency(run).p50_us, showUs, true],
  ["p99", "", (run) => latency(run).p99_us, showUs, true],
  ["p99.9", "", (run) => latency(run).p99_9_us, showUs, true],
  ["p99.99", "", (run) => latency(run).p99_99_us, showUs, true],
  ["Broker CPU", "s/GiB", (run) => run.result.broker && run.result.broker.cpu_seconds_per_gib, short, true],
  ["Peak memory", "", (run) => run.result.broker && run.result.broker.rss_peak_bytes, showBytes, true],
  ["To disk", "B per B", (run) => run.result.broker && run.result.broker.storage_bytes_per_byte, short, true],
  ["History", "MiB/s", (run) => run.result.backfilled && run.result.backfilled.mib_per_second, short, false],
  ["Load's ceiling", "MiB/s", (run) => { const c = run.ceiling.maximum || run.ceiling.same; return c && outcome({ result: c }).mib_per_second; }, short, null],
];

function figures(scenario, card) {
  const brokers = names.filter((name) => scenario.runs.some((run) => run.broker === name));
  const runsOf = (name) => scenario.runs.filter((run) => run.broker === name);
  const used = METRICS.filter(([, , value]) => scenario.runs.some((run) => typeof value(run) === "number"));
  const table = element("table", {}, element("div", { class: "scroll" }, card));
  const header = element("tr", {}, table);
  element("th", { text: "" }, header);
  for (const [name, unit] of used) element("span", { class: "unit", text: unit || "\u00a0" }, element("th", { text: name }, header));
  const medians = used.map(([, , value]) => brokers.map((name) => {
    const values = runsOf(name).map(value).filter((v) => typeof v === "number");
    return values.length ? { at: median(values), low: Math.min(...values), high: Math.max(...values), many: values.length > 1 } : null;
  }));
  brokers.forEach((name, b) => {
    const row = element("tr", {}, table);
    const failed = runsOf(name).filter((run) => run.failures.length).length;
    const cell = element("td", {}, row);
    key(name, cell);
    if (failed) element("span", { class: "range wrong", text: `${failed} of ${runsOf(name).length} runs failed: see below` }, cell);
    used.forEach(([, , , show, less], m) => {
      const found = medians[m][b];
      const others = medians[m].filter(Boolean).map((one) => one.at);
      const differ = Math.max(...others) > Math.min(...others) * 1.02;
      const best = less !== null && differ && found && found.at === (less ? Math.min(...others) : Math.max(...others));
      const cell = element("td", { class: best ? "best" : undefined, text: found ? show(found.at) : "–" }, row);
      if (found && found.many && show(found.low) !== show(found.high)) element("span", { class: "range", text: showRange(found.low, found.high, show) }, cell);
    });
  });
}

const isOpenLoop = (scenario) => scenario.runs.some((run) => run.workload.producing && run.workload.producing.requests_per_second);

// What a scenario is about, in one figure: how fast, or at a rate how late.
function mainFigure(scenario) {
  const lone = scenario.runs.every((run) => run.workload.producing && run.workload.producing.connections * run.workload.producing.in_flight === 1);
  if (lone) return { name: "median latency of one record", value: (run) => latency(run).p50_us, show: showUs, less: true };
  if (isOpenLoop(scenario)) return { name: "p99 latency at the rate that was set", value: (run) => latency(run).p99_us, show: showUs, less: true };
  return { name: "throughput", value: (run) => outcome(run).mib_per_second, show: (v) => `${short(v)} MiB/s`, less: false };
}

function bars(scenario, card) {
  const figure = mainFigure(scenario);
  const found = names.map((name) => [name, scenario.runs.filter((run) => run.broker === name).map(figure.value)]).filter(([, values]) => values.length);
  const middles = found.map(([name, values]) => [name, median(values)]);
  const most = Math.max(...middles.map(([, at]) => at));
  const strip = element("div", { class: "bars" }, card);
  element("div", { class: "soft small", text: `${figure.name}, ${figure.less ? "shorter" : "longer"} is better` }, strip);
  for (const [name, at] of middles) {
    const row = element("div", { class: "bar" }, strip);
    element("span", { text: label(name) }, row);
    const track = element("span", { class: "track" }, row);
    element("i", { style: `width:${((100 * at) / most).toFixed(2)}%;background:${color(name)}` }, track);
    element("b", { text: figure.show(at) }, track);
  }
}

// The run that stands for a broker: that whose main figure is in the middle.
function middle(runs, value) {
  const sorted = [...runs].sort((a, b) => value(a) - value(b));
  return sorted[(sorted.length - 1) >> 1];
}

const rarity = [1, 10, 100, 1e3, 1e4, 1e5];
const PERCENT = { 1: "0", 10: "p90", 100: "p99", 1000: "p99.9", 10000: "p99.99", 100000: "p99.999" };
const percentileAxis = {
  log: true, ticks: rarity, label: "percentile", format: (x) => PERCENT[Math.round(x)] || "",
  tip: (x) => (x < 1.01 ? "least" : `p${Number((100 * (1 - 1 / x)).toPrecision(6))}: one in ${short(x)} is slower`),
};
const timeAxis = { label: "seconds", unit: "s", format: (x) => plain(x) };
const latencyAxis = { log: true, format: showUs };

function charts(scenario, card) {
  const brokers = names.filter((name) => scenario.runs.some((run) => run.broker === name));
  const openLoop = isOpenLoop(scenario);
  const main = mainFigure(scenario).value;
  const gather = (points) => brokers.flatMap((name) => {
    const runs = scenario.runs.filter((run) => run.broker === name);
    const chosen = middle(runs, main);
    return runs.map((run) => ({ name: label(name), color: color(name), pale: run !== chosen, points: points(run) }));
  });
  const chosenRuns = brokers.map((name) => middle(scenario.runs.filter((run) => run.broker === name), main));
  const curve = (list) => (list || []).map((p) => [1 / (1 - p.quantile), p.us]);
  const grid = element("div", { class: "charts" }, card);
  const add = (spec) => { const made = lineChart(spec); if (made) grid.append(made); };
  const floor = openLoop
    ? chosenRuns.slice(0, 1).filter((run) => run.ceiling.same && run.ceiling.same.produced).map((run) => ({
        name: "the load itself, against a sink", color: "var(--faint)", dash: "2 4", points: curve(run.ceiling.same.produced.latency_curve) }))
    : [];
  const produces = scenario.runs.some((run) => run.result.produced);
  const what = produces ? "Publish latency" : "Fetch latency";
  const meant = openLoop ? "from the intended sending to the acknowledgement" : "closed loop, queues full: from sending to the answer";
  add({ title: `${what}, by percentile`, note: `${meant}; log scales`, x: percentileAxis, y: latencyAxis,
    series: [...gather((run) => curve(outcome(run).latency_curve)), ...floor] });
  if (scenario.runs.some((run) => run.result.end_to_end_curve.length)) {
    const alone = chosenRuns.filter((run) => run.baseline).map((run) => ({
      name: `${label(run.broker)}, nobody reads the history`, color: color(run.broker), dash: "5 4", points: curve(run.baseline.end_to_end_curve) }));
    const note = alone.length ? "to the reader's hands; dashed: without the reader of the history" : "from the intended time of sending to the reader's hands";
    add({ title: "End-to-end latency, by percentile", note, x: percentileAxis, y: latencyAxis,
      series: [...gather((run) => curve(run.result.end_to_end_curve)), ...alone] });
  }
  const seconds = (list, value) => (list || []).filter((s) => s.seconds > 0.5 && typeof value(s) === "number").map((s) => [s.at_seconds, value(s)]);
  const lates = (run) => (run.result.end_to_end_series.length ? run.result.end_to_end_series : outcome(run).series);
  add({ title: "Latency over time", note: "p99 of each second", x: timeAxis, y: latencyAxis, series: gather((run) => seconds(lates(run), (s) => s.p99_us)) });
  add({ title: "Rate over time", note: "MiB acknowledged or read in each second", x: timeAxis, y: { format: (v, axis) => (axis ? plain(v) : `${short(v)} MiB/s`) },
    series: gather((run) => seconds(outcome(run).series, (s) => s.bytes / s.seconds / 2 ** 20)) });
  if (scenario.runs.some((run) => run.result.backfilled)) {
    add({ title: "Reading the history", note: "MiB in each second", x: timeAxis, y: { format: (v, axis) => (axis ? plain(v) : `${short(v)} MiB/s`) },
      series: gather((run) => seconds(run.result.backfilled && run.result.backfilled.series, (s) => s.bytes / s.seconds / 2 ** 20)) });
  }
  if (scenario.runs.some((run) => run.result.broker_series.length > 20)) {
    add({ title: "Memory over time", note: "resident, of the broker", x: timeAxis, y: { format: showBytes, binary: true },
      series: gather((run) => run.result.broker_series.map((s) => [s.at_seconds, s.rss_bytes])) });
  }
}

function ratios(scenario, card) {
  const rows = ((compare && compare.rows) || []).filter((row) => row.scenario === scenario.name && row.ratios.length);
  if (!rows.length) return;
  const details = element("details", { open: "" }, card);
  element("summary", { text: "Ratios, with the interval of a bootstrap over the rounds" }, details);
  const table = element("table", {}, element("div", { class: "scroll" }, details));
  const pairs = rows[0].ratios.map((one) => [one.of, one.to]);
  const header = element("tr", {}, table);
  element("th", { text: "" }, header);
  for (const [of, to] of pairs) element("span", { class: "unit", text: `to ${label(to)}` }, element("th", { text: label(of) }, header));
  element("span", { class: "unit", text: "share of the limit" }, element("th", { text: label(names[0]) }, header));
  for (const row of rows) {
    const tr = element("tr", {}, table);
    element("td", { text: row.what }, tr);
    for (const [of, to] of pairs) {
      const one = row.ratios.find((r) => r.of === of && r.to === to);
      const cell = element("td", { text: one && one.ratio !== null ? `${short(one.ratio)}×` : "–" }, tr);
      if (one && one.low !== null) element("span", { class: "range", text: `${short(one.low)} – ${short(one.high)}` }, cell);
    }
    const share = row.share && row.share[names[0]];
    element("td", { text: typeof share === "number" ? `${number(share * 100, 0)} %` : "–" }, tr);
  }
}

function about(scenario, card) {
  const failures = [...new Set(scenario.runs.flatMap((run) => run.failures.map((why) => `${label(run.broker)}: ${why}`)))];
  const errors = (scenario.errors || []).map((one) => `${label(one.broker)}: ${one.error}`);
  const said = new Map();
  for (const run of scenario.runs) for (const why of run.notes) said.set(why, (said.get(why) || new Set()).add(label(run.broker)));
  const all = new Set(scenario.runs.map((run) => run.broker)).size;
  const notes = [...said].map(([why, of]) => (of.size === all ? why : `${[...of].join(", ")}: ${why}`));
  if (failures.length + errors.length + notes.length) {
    const list = element("ul", { class: "notes" }, card);
    for (const why of [...errors, ...failures]) element("li", { class: "wrong", text: why }, list);
    for (const why of notes) element("li", { text: why }, list);
  }
  const details = element("details", {}, card);
  element("summary", { text: "The scenario in full" }, details);
  element("pre", { text: JSON.stringify(scenario.scenario, null, 2) }, details);
}

function starts() {
  const rows = (compare && compare.starts) || [];
  if (!rows.length) return;
  const card = element("section", { class: "card" }, main);
  element("h2", { text: "Starting, stopping, idling" }, card);
  const table = element("table", {}, element("div", { class: "scroll" }, card));
  const header = element("tr", {}, table);
  for (const name of ["", "Broker", "Figure", "Range"]) element("th", { text: name }, header);
  for (const one of rows) {
    const tr = element("tr", {}, table);
    element("td", { text: one.what }, tr);
    key(one.broker, element("td", {}, tr));
    element("td", { text: `${short(one.median)} ${one.unit}` }, tr);
    element("td", { class: "soft", text: `${short(one.low)} – ${short(one.high)}` }, tr);
  }
}

head();
targets();
limits();
for (const scenario of report.scenarios) {
  const card = element("section", { class: "card", id: scenario.name }, main);
  element("h2", { text: scenario.name }, card);
  element("p", { class: "soft", text: scenario.reason }, card);
  if (scenario.runs.length) {
    bars(scenario, card);
    figures(scenario, card);
    charts(scenario, card);
    ratios(scenario, card);
  }
  about(scenario, card);
}
starts();
