"use strict";
// Everything is on the page already; this lets one move through time, read values off curves, and zoom.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const [LEFT, TOP, ACROSS, DOWN] = facts.plot, END = Math.max(1, facts.end);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const images = (at) => at.toLocaleString("en") + " images";

  // ---- curves: a cursor through all panels, and a zoom of their common x axis
  let view = [0, END], pinned = null;
  const panels = all(".panel").map((figure, index) => {
    const plot = figure.querySelector(".plot"), caption = figure.querySelector("figcaption");
    const at = caption.insertBefore(document.createElement("span"), caption.querySelector(".axis"));
    at.className = "at";
    const values = all("b", caption), last = values.map((value) => value.textContent);
    return { ...facts.panels[index], plot, at, values, last, times: figure.querySelector(".times"),
             curves: figure.querySelector(".curves"), pin: add(plot, "pin"), cursor: add(plot, "cursor"),
             seen: all(".line", plot).map((line) => add(plot, "seen " + line.classList[1])),
             band: add(plot, "band") };
  });

  function add(plot, name) {
    const path = plot.appendChild(document.createElementNS(plot.namespaceURI, "path"));
    path.setAttribute("class", name);
    return path;
  }
  const across = (at) => (at - view[0]) / (view[1] - view[0]) * ACROSS;
  const down = (panel, value) =>
    DOWN * (panel.high - (panel.log ? Math.log10(value) : value)) / (panel.high - panel.low);
  const vertical = (at) => at >= view[0] && at <= view[1] ? `M${across(at)} 0v${DOWN}` : "";

  function nearest(moments, at) {  // index, in ascending moments
    let low = 0, high = moments.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (moments[middle] <= at) low = middle; else high = middle;
    }
    return Math.abs(moments[low] - at) <= Math.abs(moments[high] - at) ? low : high;
  }
  function written(value) {
    if (value === null) return "–";
    if (Math.abs(value) >= 1000 && Math.abs(value) < 1e9) return Math.round(value).toLocaleString("en");
    return String(Number(value.toPrecision(4)));
  }

  function point(at, here) {  // at null: back to the last values
    for (const panel of panels) {
      panel.cursor.setAttribute("d", at === null ? "" : vertical(at));
      panel.at.textContent = at !== null && panel === here ? images(Math.round(at)) : "";
      panel.series.forEach(([moments, values], index) => {
        const found = at === null ? -1 : nearest(moments, at), value = values[found];
        panel.values[index].textContent = at === null ? panel.last[index] : written(value);
        const drawn = at !== null && value !== null && moments[found] >= view[0] && moments[found] <= view[1];
        panel.seen[index].setAttribute("d", drawn ? `M${across(moments[found])} ${down(panel, value)}h0` : "");
      });
    }
  }

  function ticks(low, high) {
    const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(1, [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= 0.999 * rough));
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(at);
    return found;
  }
  function short(value) {
    for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (value >= 0.9999 * size) return Number((value / size).toPrecision(4)) + letter;
    return String(Math.round(value));
  }
  function zoom(from, to) {
    view = [Math.max(0, from), Math.min(END, to)];
    const scale = END / (view[1] - view[0]);
    document.querySelector(".reset").hidden = scale === 1;
    for (const panel of panels) {
      panel.curves.setAttribute("transform", `translate(${across(0).toFixed(3)} 0) scale(${scale.toFixed(6)} 1)`);
      panel.times.replaceChildren(...ticks(...view).map((at) => {
        const text = document.createElementNS(panel.plot.namespaceURI, "text");
        text.setAttribute("x", LEFT + across(at));
        text.setAttribute("y", TOP + DOWN + 17);
        text.textContent = short(at);
        return text;
      }));
    }
    point(null);
    pin(pinned);
  }
  function pin(at) {
    pinned = at;
    for (const panel of panels) panel.pin.setAttribute("d", at === null ? "" : vertical(at));
  }

  for (const panel of panels) {
    let start = null;
    const svg = panel.plot.ownerSVGElement;
    const where = (event) => {
      const box = svg.getBoundingClientRect(), unit = box.width / svg.viewBox.baseVal.width;
      const share = ((event.clientX - box.left) / unit - LEFT) / ACROSS;
      return view[0] + Math.min(1, Math.max(0, share)) * (view[1] - view[0]);
    };
    const wide = (from, to) => Math.abs(across(to) - across(from)) > 6;
    svg.addEventListener("pointermove", (event) => {
      const at = where(event);
      point(at, panel);
      const drawn = start !== null && wide(start, at);
      panel.band.setAttribute("d", drawn ? `M${across(start)} 0H${across(at)}V${DOWN}H${across(start)}z` : "");
    });
    svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      start = where(event);
      if (event.pointerType === "mouse") svg.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    svg.addEventListener("pointerup", (event) => {
      const from = start, to = where(event);
      start = null;
      panel.band.setAttribute("d", "");
      if (from === null) return;
      if (wide(from, to)) zoom(Math.min(from, to), Math.max(from, to));
      else if (show) show(nearest(moments, to));
    });
    svg.addEventListener("pointercancel", () => { start = null; panel.band.setAttribute("d", ""); });
    svg.addEventListener("pointerleave", () => point(null));
    svg.addEventListener("dblclick", () => zoom(0, END));
  }
  const reset = document.querySelector(".reset");
  if (reset) {
    reset.addEventListener("click", () => zoom(0, END));
    document.querySelector(".hint").hidden = false;
  }

  // ---- samples: one slider for every track; each shows its latest frame up to the moment
  let moments = [], show = null;
  const slider = document.querySelector(".slider");
  if (slider) {
    slider.hidden = false;
    moments = slider.dataset.moments.split(",").map(Number);
    const range = slider.querySelector("input"), output = slider.querySelector("output");
    const button = slider.querySelector("button");
    const tracks = all(".track").map((track) => all(".frame", track)).filter((frames) => frames.length);
    let timer = null;

    show = (index) => {
      const at = moments[index];
      range.value = index;
      output.textContent = images(at);
      range.setAttribute("aria-valuetext", output.textContent);
      for (const frames of tracks) {
        const due = frames.filter((frame) => Number(frame.dataset.at) <= at).pop() || frames[0];
        for (const frame of frames) {
          if (frame !== due) frame.querySelector("audio")?.pause();
          frame.hidden = frame !== due;
        }
      }
      pin(index === moments.length - 1 ? null : at);
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      button.className = "";
      button.setAttribute("aria-label", "Play");
    };
    button.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (Number(range.value) === moments.length - 1) show(0);
      button.className = "on";
      button.setAttribute("aria-label", "Pause");
      timer = setInterval(() => {
        show(Number(range.value) + 1);
        if (Number(range.value) === moments.length - 1) stop();
      }, Math.min(600, 6000 / moments.length));
    });
    range.addEventListener("input", () => { stop(); show(Number(range.value)); });
    show(moments.length - 1);
  }
  for (const image of all(".stage img"))
    image.addEventListener("click", () => image.closest("figure").classList.toggle("wide"));
})();
