// Filtering: a row is shown if it contains every word and every choice. What is about the row follows
// it: its point in the plot, its column of the class table, its controls, its cells of the matrix.
const form = document.querySelector(".choices");
const dependents = [...document.querySelectorAll("[data-of]")];
const lines = [...document.querySelectorAll(".lines tbody tr")].map((row) => {
  const group = row.closest(".group");
  const shared = group.querySelector("h2").textContent + " " + (group.querySelector(".shared")?.textContent ?? "");
  return { row, group, text: (row.cells[1].textContent + " " + shared).toLowerCase() };
});
const plural = (count, noun) => count + " " + noun + (count === 1 ? "" : "s");
const some = (shown, all) => (shown === all ? plural(all, "line") : shown + " of " + plural(all, "line"));

const hideColumn = (header, hidden) => {
  const rows = [...header.closest("table").rows];
  for (const row of rows) row.cells[header.cellIndex].hidden = hidden;
};

// mean over the visible columns, and the hardest class first unless the reader has sorted the table
const averageClasses = (table) => {
  const rows = [...table.tBodies[0].rows].map((row) => {
    const cells = [...row.cells].slice(2).filter((cell) => !cell.hidden);
    const mean = cells.reduce((sum, cell) => sum + Number(cell.dataset.v), 0) / cells.length;
    if (cells.length) row.cells[1].textContent = Math.round(100 * mean);
    return [mean, row];
  });
  if (table.querySelector("[aria-sort]")) return;
  rows.sort(([a], [b]) => a - b);
  table.tBodies[0].append(...rows.map(([, row]) => row));
};

const choose = () => {
  const words = form.elements.text.value.toLowerCase().split(/\s+/);
  const choices = [...form.querySelectorAll("select")].filter((select) => select.value !== "");
  const shown = new Set(), counts = new Map();
  for (const { row, group, text } of lines) {
    const matches = words.every((word) => text.includes(word))
      && choices.every((select) => row.getAttribute("data-" + select.name.replace("_", "-")) === select.value);
    row.hidden = !matches;
    if (matches) shown.add(row.id || row);
    const [some, all] = counts.get(group) ?? [0, 0];
    counts.set(group, [some + matches, all + 1]);
  }
  for (const item of dependents) {
    const hidden = !shown.has(item.dataset.of);
    if (item.tagName === "TH") hideColumn(item, hidden);
    else item.style.display = hidden ? "none" : "";
  }
  for (const [group, [visible, all]] of counts) {
    const entry = document.querySelector(".contents a[href='#" + group.id + "']")?.parentElement;
    group.hidden = visible === 0;
    if (entry) entry.hidden = visible === 0;
    for (const place of [group, entry]) {
      if (place) place.querySelector(".count").textContent = some(visible, all);
    }
    for (const table of group.querySelectorAll(".heat table")) averageClasses(table);
  }
  for (const row of document.querySelectorAll(".matrix tbody tr")) {
    row.hidden = ![...row.querySelectorAll("[data-of]")].some((link) => shown.has(link.dataset.of));
  }
  form.querySelector("output").value = shown.size + " of " + lines.length + " lines";
};

form.hidden = false; // without scripts it would do nothing
form.addEventListener("input", choose);
choose();
