// Accepting from the page writes a patch file. It changes nothing by itself: `conformance gt apply` takes what it names.
const dialog = document.getElementById("accept");
const dialogForm = dialog.querySelector("form");
const bar = document.getElementById("patch");
const accepted = new Map(); // case and gate -> entry
let offered = null;

const keyOf = (entry) => `${entry.case}\n${entry.gate}`;

function refresh() {
  bar.hidden = !accepted.size;
  bar.querySelector("[role=status]").textContent = `Patch with ${accepted.size} ${accepted.size === 1 ? "entry" : "entries"}`;
  for (const place of document.querySelectorAll("[data-accept]")) {
    const done = accepted.has(keyOf(JSON.parse(place.dataset.accept)));
    place.querySelector("button").textContent = done ? "In the patch: change …" : "Accept this output …";
  }
}

function offer(place) {
  offered = JSON.parse(place.dataset.accept);
  const before = accepted.get(keyOf(offered));
  dialog.querySelector(".what").textContent = `${offered.case}, ${offered.gate} gate`;
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10);
  dialogForm.elements.expires.min = tomorrow;
  if (before) for (const name of ["reason", "owner", "expires"]) dialogForm.elements[name].value = before[name];
  else dialogForm.elements.reason.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  dialogForm.elements.reason.focus();
}

// Spaces are no reason.
dialogForm.addEventListener("submit", (event) => {
  for (const name of ["reason", "owner"]) {
    const field = dialogForm.elements[name];
    field.value = field.value.trim();
    if (!field.value) {
      event.preventDefault();
      field.reportValidity();
      return;
    }
  }
});
dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  if (dialog.returnValue !== "add") return;
  const { reason, owner, expires } = dialogForm.elements;
  accepted.set(keyOf(offered), { ...offered, reason: reason.value, owner: owner.value, expires: expires.value });
  refresh();
});
for (const place of document.querySelectorAll("[data-accept]")) {
  place.hidden = false;
  place.querySelector("button").addEventListener("click", () => offer(place));
}
bar.querySelector("[data-clear]").addEventListener("click", () => {
  accepted.clear();
  refresh();
});
bar.querySelector("[data-download]").addEventListener("click", () => {
  const patch = { schema: "conformance.accept/1", results: JSON.parse(bar.dataset.source), entries: [...accepted.values()] };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(patch, null, 1)}\n`], { type: "application/json" }));
  link.download = "accept.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
});
