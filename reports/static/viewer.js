// The frames of a card: side by side, slider, blink, difference; zoom and pan in step; frames over time.
// It works on what the page shows without it. Full frames are read from beside the page; thumbnails stand in for them.
const BLINK_MS = 600;
const MOST_ZOOM = 64;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function makeViewer(root) {
  const panes = Object.fromEntries([...root.querySelectorAll(".pane")].map((pane) => [pane.dataset.side, pane]));
  if (!panes.candidate && !panes.both) return;
  const images = {};
  for (const [side, pane] of Object.entries(panes)) {
    const image = pane.querySelector("img");
    if (!image) continue;
    images[side] = image;
    image.dataset.thumb = image.src;
    image.draggable = false;
  }
  if (!Object.keys(images).length) return;
  const items = [...root.querySelectorAll(".strip > li")];
  const frames = items.map((item) => ({ item, strip: item.parentElement, name: item.querySelector(".name").firstChild.textContent }));
  const worst = Math.max(0, items.findIndex((item) => item.classList.contains("worst")));
  const paired = Boolean(images.candidate && images.reference);
  const tools = document.getElementById("tools").content.firstElementChild.cloneNode(true);
  const [frameName, zoomName] = tools.querySelectorAll("output");
  const note = tools.querySelector(".note");
  const tilesBox = tools.querySelector(".grid input");
  const tiles = root.querySelector(".tiles");
  const handle = document.createElement("div");
  let mode = "side";
  let at = worst;
  let split = 50;
  let zoom = { scale: 1, x: 0, y: 0 }; // x, y: shift in shares of the pane
  let blinking = 0;
  let playing = 0;

  function draw() {
    const { scale, x, y } = zoom;
    for (const view of root.querySelectorAll(".view")) {
      view.classList.toggle("near", scale >= 2);
      view.style.setProperty("--scale", String(scale));
      for (const each of view.children) each.style.transform = `translate(${100 * x}%, ${100 * y}%) scale(${scale})`;
    }
    zoomName.textContent = scale === 1 ? "fit" : `${scale < 10 ? scale.toFixed(1) : Math.round(scale)}×`;
    panes.candidate?.style.setProperty("--split", `${split}%`);
    handle.style.left = `${split}%`;
    handle.setAttribute("aria-valuenow", String(Math.round(split)));
  }

  function setZoom(scale, focusX = 0.5, focusY = 0.5) {
    scale = Math.min(MOST_ZOOM, Math.max(1, scale));
    const ratio = scale / zoom.scale;
    const shift = (old, focus) => Math.min(0, Math.max(1 - scale, focus - (focus - old) * ratio));
    zoom = { scale, x: shift(zoom.x, focusX), y: shift(zoom.y, focusY) };
    if (scale > 1) full();
    draw();
  }

  function pan(dx, dy) {
    const inside = (value) => Math.min(0, Math.max(1 - zoom.scale, value));
    zoom = { ...zoom, x: inside(zoom.x + dx), y: inside(zoom.y + dy) };
    draw();
  }

  const linkOf = (side, place) => (side === "heat" ? items[place].querySelector('a[data-side="heat"]') : items[place].querySelector(`[data-side="${side}"] a, a[data-side="${side}"]`));
  const smallOf = (side, place) => items[place].querySelector(`[data-side="${side}"] img`);

  // Show a side of a frame: the thumbnail at once, the full frame when it has come.
  function picture(side, place, whole) {
    const image = images[side];
    const pane = panes[side];
    const anchor = pane.querySelector("a");
    const link = place === undefined ? anchor : linkOf(side, place);
    pane.classList.toggle("absent", !link);
    if (!link) return;
    const small = place === worst || place === undefined ? image.dataset.thumb : smallOf(side, place)?.src;
    if (anchor) anchor.href = link.getAttribute("href");
    if (!whole && small) {
      image.dataset.wanted = "";
      image.src = small;
      return;
    }
    const wanted = link.href;
    image.dataset.wanted = wanted;
    if (image.src === wanted) return;
    if (small && !playing) image.src = small;
    const loader = new Image();
    loader.onload = () => {
      if (image.dataset.wanted === wanted) image.src = wanted;
    };
    loader.onerror = () => {
      if (image.dataset.wanted !== wanted) return;
      note.textContent = "The full frames are not beside this page.";
      if (small) image.src = small;
      else pane.classList.add("absent");
    };
    loader.src = wanted;
  }

  function full() {
    for (const side of Object.keys(images)) picture(side, items.length ? at : undefined, true);
  }

  function show(place) {
    if (!items.length) return;
    at = (place + items.length) % items.length;
    for (const [index, item] of items.entries()) item.classList.toggle("now", index === at);
    frameName.textContent = `${frames[at].name.replace("frame ", "")} (${at + 1}/${items.length})`;
    full();
    tiles?.querySelector("rect").classList.toggle("off", at !== worst);
    const chart = frames[at].strip.previousElementSibling;
    for (const line of root.querySelectorAll(".cursor")) line.setAttribute("visibility", "hidden");
    const own = frames.filter(({ strip }) => strip === frames[at].strip);
    if (chart?.matches(".timeline") && own.length > 1) {
      const [left, right] = [Number(chart.dataset.left), Number(chart.dataset.right)];
      const x = left + ((right - left) * own.indexOf(frames[at])) / (own.length - 1);
      const cursor = chart.querySelector(".cursor");
      cursor.setAttribute("x1", String(x));
      cursor.setAttribute("x2", String(x));
      cursor.setAttribute("visibility", "visible");
    }
    if (!playing) {
      const strip = frames[at].strip;
      strip.scrollLeft += items[at].getBoundingClientRect().left - strip.getBoundingClientRect().left - strip.clientWidth / 2;
    }
  }

  function stopBlink() {
    clearInterval(blinking);
    blinking = 0;
    root.classList.remove("swapped");
  }

  const swap = () => root.classList.toggle("swapped");

  function setMode(next) {
    if ((next === "slide" || next === "blink") && !paired) return;
    if (next === "diff" && !panes.heat) return;
    const again = next === mode && next === "blink";
    mode = next;
    root.dataset.mode = mode;
    for (const button of tools.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    handle.hidden = mode !== "slide";
    if (again) {
      clearInterval(blinking);
      blinking = 0;
      swap();
      return;
    }
    stopBlink();
    if (mode === "blink" && !calm.matches) blinking = setInterval(swap, BLINK_MS);
    if (mode !== "side") full();
    draw();
  }

  function play(on) {
    clearInterval(playing);
    playing = 0;
    const button = tools.querySelector("[data-play]");
    button.textContent = on ? "Stop" : "Play";
    button.setAttribute("aria-pressed", String(on));
    if (!on) return;
    const own = frames.map(({ strip }, index) => [strip, index]).filter(([strip]) => strip === frames[at].strip).map(([, index]) => index);
    for (const side of Object.keys(images)) {
      for (const place of own) {
        const link = linkOf(side, place);
        if (link) new Image().src = link.href;
      }
    }
    playing = setInterval(() => show(own[(own.indexOf(at) + 1) % own.length]), 1000 / Number(root.dataset.rate));
  }

  function setTiles(on) {
    tilesBox.checked = on;
    root.classList.toggle("notiles", !on);
  }

  // Tools
  root.querySelector(".panes").before(tools);
  for (const button of tools.querySelectorAll("[data-mode]")) button.addEventListener("click", () => setMode(button.dataset.mode));
  if (!paired) tools.querySelector(".modes").hidden = true;
  if (!panes.heat) tools.querySelector('[data-mode="diff"]').hidden = true;
  if (items.length < 2) tools.querySelector(".frame").hidden = true;
  if (!tiles) tools.querySelector(".grid").hidden = true;
  if (!root.querySelector(".strip > .worst")) tools.querySelector("[data-worst]").hidden = true;
  for (const button of tools.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => {
      play(false);
      show(at + Number(button.dataset.step));
    });
  }
  tools.querySelector("[data-play]").addEventListener("click", () => play(!playing));
  tools.querySelector("[data-worst]").addEventListener("click", () => {
    play(false);
    show(worst);
  });
  for (const button of tools.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => setZoom(button.dataset.zoom === "0" ? 1 : zoom.scale * 2 ** Number(button.dataset.zoom)));
  }
  tilesBox.addEventListener("change", () => setTiles(tilesBox.checked));

  // Slider
  handle.className = "handle";
  handle.tabIndex = 0;
  handle.hidden = true;
  for (const [name, value] of Object.entries({ role: "slider", "aria-label": "Candidate left of here", "aria-valuemin": "0", "aria-valuemax": "100" })) handle.setAttribute(name, value);
  root.querySelector(".panes").append(handle);
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    split = Math.min(100, Math.max(0, split + step));
    draw();
  });

  // Pointer: the slider follows it at fit, otherwise it drags the picture. The wheel zooms with Ctrl, or once zoomed.
  const stage = root.querySelector(".panes");
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    const view = event.target === handle ? panes.candidate.querySelector(".view") : event.target.closest?.(".view");
    if (!view || event.button) return;
    drag = { view, x: event.clientX, y: event.clientY, moved: false, slide: event.target === handle || (mode === "slide" && zoom.scale === 1) };
    if (drag.slide) slideTo(event);
  });
  const slideTo = (event) => {
    const box = panes.candidate.querySelector(".view").getBoundingClientRect();
    split = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
    draw();
  };
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (Math.abs(dx) + Math.abs(dy) > 3 && !drag.moved) {
      drag.moved = true;
      stage.setPointerCapture(event.pointerId);
    }
    if (drag.slide) slideTo(event);
    else if (drag.moved && zoom.scale > 1) {
      pan(dx / drag.view.clientWidth, dy / drag.view.clientHeight);
      Object.assign(drag, { x: event.clientX, y: event.clientY });
    }
  });
  stage.addEventListener("pointerup", () => (drag = null));
  stage.addEventListener("pointercancel", () => (drag = null));
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  stage.addEventListener(
    "wheel",
    (event) => {
      const view = event.target.closest?.(".view");
      if (!view || !(event.ctrlKey || zoom.scale > 1)) return;
      event.preventDefault();
      const box = view.getBoundingClientRect();
      setZoom(zoom.scale * 2 ** (-event.deltaY / 240), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    },
    { passive: false },
  );
  stage.addEventListener("dblclick", (event) => {
    const view = event.target.closest?.(".view");
    if (!view) return;
    const box = view.getBoundingClientRect();
    setZoom(zoom.scale > 1 ? 1 : 4, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });

  // Frames
  for (const chart of root.querySelectorAll(".timeline")) {
    chart.addEventListener("click", (event) => {
      const box = chart.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      const [left, right] = [Number(chart.dataset.left), Number(chart.dataset.right)];
      const own = frames.map(({ strip }, index) => [strip, index]).filter(([strip]) => strip === chart.nextElementSibling).map(([, index]) => index);
      const place = Math.round(((x - left) / (right - left)) * (own.length - 1));
      play(false);
      show(own[Math.min(own.length - 1, Math.max(0, place))]);
    });
  }
  for (const [index, item] of items.entries()) {
    item.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // the link to the full frame
      event.preventDefault();
      play(false);
      show(index);
    });
  }

  root.tabIndex = -1;
  root.viewer = {
    key(event) {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (event.shiftKey && step) {
        pan(...(event.key.endsWith("t") ? [-step / 8, 0] : [0, -step / 8]));
        return true;
      }
      const actions = {
        1: () => setMode("side"),
        2: () => setMode("slide"),
        3: () => setMode("blink"),
        4: () => setMode("diff"),
        ArrowLeft: () => (play(false), show(at - 1)),
        ArrowRight: () => (play(false), show(at + 1)),
        w: () => (play(false), show(worst)),
        " ": () => play(!playing && items.length > 1),
        "+": () => setZoom(zoom.scale * 2),
        "=": () => setZoom(zoom.scale * 2),
        "-": () => setZoom(zoom.scale / 2),
        0: () => setZoom(1),
        g: () => setTiles(!tilesBox.checked),
      };
      if (!(event.key in actions)) return false;
      actions[event.key]();
      return true;
    },
  };
  root.classList.add("live");
  if (items.length) {
    for (const [index, item] of items.entries()) item.classList.toggle("now", index === at);
    frameName.textContent = `${frames[at].name.replace("frame ", "")} (${at + 1}/${items.length})`;
  }
  setMode("side");
}

// A viewer is made when its card is first seen: a page of hundreds of cases opens at once.
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    makeViewer(target);
  }
});
for (const root of document.querySelectorAll(".viewer")) seen.observe(root);
