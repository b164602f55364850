// What the pages do beyond HTML: live numbers that rest while nobody looks, charts, and local times.
"use strict";

(() => {
  const live = document.querySelector("[data-live]");
  const body = document.body;

  function say(text, isStale) {
    live.querySelector("[data-live-says]").textContent = text;
    live.classList.toggle("is-stale", isStale);
    live.classList.toggle("is-live", !isStale);
  }

  if (live) {
    say("updates every 5 s", false);
    body.addEventListener("htmx:beforeRequest", (event) => {
      if (document.hidden) event.preventDefault();
    });
    // What somebody is in the middle of stays; and what has not changed is not announced again.
    body.addEventListener("htmx:oobBeforeSwap", (event) => {
      const { target, fragment } = event.detail;
      const isSame = target.id === "verdict" && target.textContent.trim() === fragment.textContent.trim();
      if (isSame || target.contains(document.activeElement)) event.detail.shouldSwap = false;
    });
    body.addEventListener("htmx:afterOnLoad", (event) => {
      if (event.detail.xhr.status === 200) say("updates every 5 s", false);
    });
    for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
      body.addEventListener(name, () => say("cannot update; these are the last numbers", true));
    }
  }

  // Times are shown in UTC; pointed at, in the reader's zone too.
  function tellLocally() {
    for (const time of document.querySelectorAll("time[datetime]:not([data-told])")) {
      const local = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
      time.title = time.title ? `${time.title}\n${local}` : local;
      time.dataset.told = "";
    }
  }
  tellLocally();
  body.addEventListener("htmx:oobAfterSwap", () => tellLocally());

  // On a small screen the list comes before a search that nobody has made.
  const small = matchMedia("(max-width: 760px)");
  const fold = () => document.querySelectorAll("details[data-folds]").forEach((search) => (search.open = !small.matches));
  small.addEventListener("change", fold);
  fold();

  // Back to where one is, or came from, with all that its address says.
  for (const field of document.querySelectorAll("[data-here]")) field.value = location.pathname + location.search;
  for (const link of document.querySelectorAll("[data-back]")) {
    const from = document.referrer && new URL(document.referrer);
    const isOurs = from && from.origin === location.origin && /^\/dashboard(\/|$)/.test(from.pathname);
    if (isOurs && from.pathname !== location.pathname) {
      link.href = from.pathname + from.search;
      link.textContent = "Back";
    }
  }

  // Charts

  const charts = document.querySelector("[data-charts]");
  if (!charts || !window.uPlot) return;

  const plots = new Map();
  document.querySelector("[data-zone]").textContent = `in the time of ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function colour(name) {
    const probe = document.createElement("i");
    probe.className = `colour-${name}`;
    charts.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds === 0) return "0";
    if (seconds < 0.9995) return `${+(seconds * 1000).toPrecision(2)} ms`;
    if (seconds < 60) return `${+seconds.toPrecision(2)} s`;
    return seconds < 3600 ? `${+(seconds / 60).toPrecision(2)} min` : `${+(seconds / 3600).toPrecision(2)} h`;
  }

  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric" });
  const whole = (number) => (number === null || number === undefined ? "–" : number.toLocaleString("en"));

  function stacked(data) {
    const dead = data.dead;
    const retried = dead.map((count, place) => count + data.retried[place]);
    const done = retried.map((count, place) => count + data.done[place]);
    return [data.at, done, retried, dead];
  }

  function axes(values) {
    const line = { stroke: colour("faint"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    const font = `12px ${getComputedStyle(body).fontFamily}`;
    return [
      {
        ...line,
        font,
        grid: { show: false },
        size: 26,
        space: 64,
        values: (plot, splits, axis, space, step) => splits.map((at) => (step < 86400 ? clock : day).format(at * 1000)),
      },
      { ...line, font, size: 56, space: 34, values: (plot, splits) => splits.map(values) },
    ];
  }

  function options(place, series, period, values, scale) {
    return {
      width: place.clientWidth,
      height: 224,
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      legend: { live: true },
      scales: {
        x: { range: (plot, first, last) => [first - period / 2, last + period / 2] },
        y: { range: (plot, low, high) => [0, Math.max(scale, high * 1.08)] },
      },
      series: [{ label: "at", value: (plot, at) => (at ? `${day.format(at * 1000)} ${clock.format(at * 1000)}` : "–") }, ...series],
      axes: axes(values),
    };
  }

  // Stacked: what is drawn later stands before what was drawn first, and each says its own number.
  function counts(place, data) {
    const columns = uPlot.paths.bars({ size: [0.8, 40] });
    const series = ["done", "retried", "dead"].map((name) => ({
      label: name,
      fill: colour(name),
      stroke: colour(name),
      width: 0,
      paths: columns,
      points: { show: false },
      value: (plot, value, index, at) => (at === null ? "–" : whole(plot.own[name][at])),
    }));
    const plot = new uPlot(options(place, series, data.at[1] - data.at[0], (value) => (Number.isInteger(value) ? whole(value) : ""), 4), stacked(data), place);
    plot.own = data;
    return plot;
  }

  const TIMES = [["wait_p95", "wait p95", "wait"], ["wait_p50", "wait p50", "wait"], ["run_p95", "run p95", "run"], ["run_p50", "run p50", "run"]];

  function times(place, data) {
    const series = TIMES.map(([name, label, kind]) => ({
      label,
      stroke: colour(kind),
      width: 1.5,
      dash: name.endsWith("p95") ? [] : [4, 3],
      points: { show: (plot, index) => data[name].filter((value) => value !== null).length < 3 },
      value: (plot, value) => duration(value),
    }));
    return new uPlot(options(place, series, data.at[1] - data.at[0], duration, 0.01), [data.at, ...TIMES.map(([name]) => data[name])], place);
  }

  function draw(data) {
    for (const place of charts.querySelectorAll("[data-plot]")) {
      const plot = plots.get(place);
      if (plot) plot.destroy();
      place.replaceChildren();
      plots.set(place, place.dataset.plot === "counts" ? counts(place, data) : times(place, data));
    }
  }

  let latest = null;

  async function refresh() {
    if (document.hidden && latest) return;
    try {
      const answer = await fetch(charts.dataset.charts, { headers: { accept: "application/json" }, redirect: "error" });
      if (!answer.ok) return;
      latest = await answer.json();
      draw(latest);
    } catch {
      // The picture that is there stays; the live line says when the server is away.
    }
  }

  new ResizeObserver(() => {
    for (const [place, plot] of plots) {
      if (plot.width !== place.clientWidth) plot.setSize({ width: place.clientWidth, height: plot.height });
    }
  }).observe(charts);
  dark.addEventListener("change", () => latest && draw(latest));
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, 30000);
  refresh();
})();
