// The keyboard: moving between cases, and the viewer of the case that has the focus.
const help = document.getElementById("keys");
const shownCards = () => [...document.querySelectorAll("article.card")].filter((card) => !card.hidden);
const titleOf = (card) => card.querySelector("summary");
const active = () => document.activeElement?.closest?.("article.card");

function move(by) {
  const all = shownCards();
  if (!all.length) return;
  const place = all.indexOf(active());
  const next = all[place < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, place + by))];
  next.scrollIntoView({ block: "start" });
  titleOf(next).focus({ preventScroll: true });
}

for (const button of document.querySelectorAll("[data-keys]")) {
  button.hidden = false;
  button.addEventListener("click", () => help.showModal());
}
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (target.matches?.("input, textarea, select, audio")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const card = active();
  if (event.key === " " && target.matches?.("button, summary, a")) return; // its own meaning
  const viewer = card?.querySelector("details").open ? card.querySelector(".viewer")?.viewer : null;
  const page = {
    j: () => move(1),
    k: () => move(-1),
    "/": () => document.querySelector('#filters [name="q"]').focus(),
    "?": () => help.showModal(),
    ...(card && {
      o: () => {
        const details = card.querySelector("details");
        details.open = !details.open;
      },
      a: () => card.querySelector("[data-accept] button")?.click(),
    }),
  };
  if (event.key in page) page[event.key]();
  else if (!viewer?.key(event)) return;
  event.preventDefault();
});
