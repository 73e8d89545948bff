// Filters, order and the open case. The state lives in the URL's hash:
// verdict=A,B&axis.NAME=VALUE&q=TEXT&sort=KEY or -KEY&case=ID
const form = document.getElementById("filters");
const chips = [...document.querySelectorAll(".chip")];
const selects = [...form.querySelectorAll("select[data-axis]")];
const search = form.elements.namedItem("q");
const heads = [...document.querySelectorAll("table.summary th[data-key]")];
const cards = new Map(
  [...document.querySelectorAll("article.card")].map((card) => [
    card.id,
    { card, verdict: card.dataset.verdict, axes: JSON.parse(card.dataset.axes), text: card.dataset.search },
  ]),
);
const rows = [...document.querySelectorAll("tr[data-case]")].map((row) => ({
  row,
  cards: row.dataset.cards.split(" ").map((id) => cards.get(id)),
  values: Object.fromEntries([...row.querySelectorAll("td[data-key]")].map((cell) => [cell.dataset.key, cell.dataset.sort])),
}));
let order = "";
let current = "";

const pressed = () => chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.verdict);

function filter() {
  const verdicts = pressed();
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const { card, verdict, axes, text } of cards.values()) {
    card.hidden = !(
      (!verdicts.length || verdicts.includes(verdict)) &&
      selects.every((select) => !select.value || axes[select.dataset.axis] === select.value) &&
      words.every((word) => text.includes(word))
    );
  }
  let shown = 0;
  for (const { row, cards: own } of rows) {
    row.hidden = own.every(({ card }) => card.hidden);
    shown += !row.hidden;
  }
  form.querySelector(".shown").textContent = `${shown} of ${rows.length} shown`;
}

// Worst first, "-" the other way round; no order is the page's own: failures first. What was not measured comes last.
function compare(key, worse, back) {
  if (key === "case") return (a, b) => (back ? -1 : 1) * a.values.case.localeCompare(b.values.case);
  const number = (item) => {
    const text = item.values[key];
    if (!text) return undefined;
    if (text === "nan") return worse === "low" ? -Infinity : Infinity;
    return Number(text.replace("inf", "Infinity"));
  };
  return (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    if (x === y) return 0;
    return (x > y ? 1 : -1) * (worse === "low" ? 1 : -1) * (back ? -1 : 1);
  };
}

function sort() {
  const back = order.startsWith("-");
  const head = heads.find(({ dataset }) => dataset.key === order.slice(back ? 1 : 0));
  if (!head) order = "";
  for (const each of heads) each.setAttribute("aria-sort", each !== head ? "none" : back ? "descending" : "ascending");
  const listed = head ? [...rows].sort(compare(head.dataset.key, head.dataset.worse, back)) : rows;
  const placed = listed.flatMap(({ cards: own }) => own.map(({ card }) => card));
  const bodies = head ? placed : [...cards.values()].map(({ card }) => card);
  if (listed.length) listed[0].row.parentElement.append(...listed.map(({ row }) => row));
  if (bodies.length) bodies[0].parentElement.append(...bodies);
}

function save() {
  const state = new URLSearchParams();
  if (pressed().length) state.set("verdict", pressed().join(","));
  for (const select of selects) if (select.value) state.set(`axis.${select.dataset.axis}`, select.value);
  if (search.value) state.set("q", search.value);
  if (order) state.set("sort", order);
  if (current) state.set("case", current);
  history.replaceState(null, "", `#${state}`);
}

function reveal(id) {
  const found = cards.get(id);
  if (!found) return;
  current = id;
  found.card.hidden = false;
  found.card.querySelector("details").open = true;
  found.card.scrollIntoView();
  found.card.querySelector("summary").focus({ preventScroll: true });
}

function restore() {
  const hash = location.hash.slice(1);
  if (cards.has(hash)) {
    reveal(hash);
    save();
    return;
  }
  const state = new URLSearchParams(hash);
  const verdicts = (state.get("verdict") || "").split(",");
  for (const chip of chips) chip.setAttribute("aria-pressed", String(verdicts.includes(chip.dataset.verdict)));
  for (const select of selects) select.value = state.get(`axis.${select.dataset.axis}`) || "";
  search.value = state.get("q") || "";
  order = state.get("sort") || "";
  filter();
  sort();
  reveal(state.get("case"));
}

function changed() {
  current = "";
  filter();
  save();
}

for (const chip of chips) {
  chip.disabled = false;
  chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
    changed();
  });
}
for (const head of heads) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const key = head.dataset.key;
    order = order === key ? `-${key}` : order === `-${key}` ? "" : key;
    sort();
    save();
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
    for (const { card } of cards.values()) card.querySelector("details").open = Boolean(button.dataset.open);
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
addEventListener("hashchange", restore);
filter();
restore();
