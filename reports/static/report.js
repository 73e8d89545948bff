"use strict";
// Filters over the rows of the summary table. The state lives in the URL's hash: verdict=A,B&axis.NAME=VALUE&q=TEXT&case=ID
(() => {
  const form = document.getElementById("filters");
  const chips = [...document.querySelectorAll(".chip")];
  const selects = [...form.querySelectorAll("select[data-axis]")];
  const search = form.elements.namedItem("q");
  const rows = [...document.querySelectorAll("tr[data-case]")].map((row) => ({
    row,
    card: document.getElementById(row.dataset.case),
    verdict: row.dataset.verdict,
    axes: JSON.parse(row.dataset.axes),
    text: row.dataset.search,
  }));
  let current = "";

  const pressed = () => chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.verdict);

  function apply() {
    const verdicts = pressed();
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, card, verdict, axes, text } of rows) {
      const keep =
        (!verdicts.length || verdicts.includes(verdict)) &&
        selects.every((select) => !select.value || axes[select.dataset.axis] === select.value) &&
        words.every((word) => text.includes(word));
      row.hidden = card.hidden = !keep;
      shown += keep;
    }
    form.querySelector(".shown").textContent = `${shown} of ${rows.length} shown`;
  }

  function save() {
    const state = new URLSearchParams();
    if (pressed().length) state.set("verdict", pressed().join(","));
    for (const select of selects) if (select.value) state.set(`axis.${select.dataset.axis}`, select.value);
    if (search.value) state.set("q", search.value);
    if (current) state.set("case", current);
    history.replaceState(null, "", `#${state}`);
  }

  function reveal(id) {
    const found = rows.find(({ card }) => card.id === id);
    if (!found) return;
    current = id;
    found.card.hidden = false;
    found.card.querySelector("details").open = true;
    found.card.scrollIntoView();
    found.card.querySelector("summary").focus({ preventScroll: true });
  }

  function load() {
    const hash = location.hash.slice(1);
    if (rows.some(({ card }) => card.id === hash)) {
      reveal(hash);
      save();
      return;
    }
    const state = new URLSearchParams(hash);
    const verdicts = (state.get("verdict") || "").split(",");
    for (const chip of chips) chip.setAttribute("aria-pressed", String(verdicts.includes(chip.dataset.verdict)));
    for (const select of selects) select.value = state.get(`axis.${select.dataset.axis}`) || "";
    search.value = state.get("q") || "";
    apply();
    reveal(state.get("case"));
  }

  const changed = () => {
    current = "";
    apply();
    save();
  };
  for (const chip of chips) {
    chip.disabled = false;
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      changed();
    });
  }
  form.hidden = false;
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    setTimeout(changed);
  });
  for (const button of document.querySelectorAll("[data-open]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      for (const { card } of rows) card.querySelector("details").open = Boolean(button.dataset.open);
    });
  }
  for (const button of document.querySelectorAll("button.copy")) {
    const code = button.parentElement.querySelector("code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Press Ctrl+C";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
  addEventListener("hashchange", load);
  apply();
  load();
})();
