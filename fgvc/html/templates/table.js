"use strict";

// Sorting: the button of a header sorts the rows of its table; rows without a value come last.
const value = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.v ?? cell.textContent.trim();
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
};

const order = (a, b) => {
  if (a === "" || b === "") return (a === "") - (b === "");
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
};

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "ascending";
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => (a === "" || b === "" || !down ? order(a, b) : order(b, a)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

// Filtering: a row is shown if it contains every word and every choice, and so is its point in the plot.
const form = document.querySelector(".choices");
const points = new Map([...document.querySelectorAll("[data-of]")].map((point) => [point.dataset.of, point]));
const lines = [...document.querySelectorAll(".lines tbody tr")].map((row) => ({
  row, text: (row.cells[1].textContent + " " + row.closest(".group").querySelector("h2").textContent).toLowerCase(),
}));

const choose = () => {
  const words = form.elements.text.value.toLowerCase().split(/\s+/);
  const choices = [...form.querySelectorAll("select")].filter((select) => select.value !== "");
  let shown = 0;
  for (const { row, text } of lines) {
    const matches = words.every((word) => text.includes(word))
      && choices.every((select) => row.getAttribute("data-" + select.name.replace("_", "-")) === select.value);
    row.hidden = !matches;
    shown += matches;
    if (points.has(row.id)) points.get(row.id).style.display = matches ? "" : "none";
  }
  for (const group of document.querySelectorAll(".group")) {
    group.hidden = !group.querySelector(".lines tbody tr:not([hidden])");
  }
  form.querySelector("output").value = shown + " of " + lines.length + " lines";
};

form.addEventListener("input", choose);
choose();
