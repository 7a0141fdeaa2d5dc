"use strict";

// Sorting: the button of a header sorts the rows of its table; rows without a value come last.
const value = (row, column) => {
  const cell = row.cells[column];
  const text = (cell.dataset.v ?? cell.textContent.trim()).replace(/^−/, "-");
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
