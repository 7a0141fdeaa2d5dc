// Searching classes: lists open at the rows that contain every word, at most MOST of them.
const MOST = 200;
for (const search of document.querySelectorAll(".class-search")) {
  const lists = [...search.parentElement.querySelectorAll(".class-list")];
  const input = search.querySelector("input");
  let rows; // read with the first letter: there can be thousands
  const find = () => {
    rows ??= lists.flatMap((list) => [...list.querySelectorAll("tbody tr")].map((row) => (
      { row, list, text: row.cells[0].textContent.toLowerCase() })));
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = rows.filter(({ text }) => words.every((word) => text.includes(word)));
    const shown = new Set(words.length ? hits.slice(0, MOST) : hits);
    const open = new Set(words.length ? [...shown].map(({ list }) => list) : []);
    for (const item of rows) item.row.hidden = !shown.has(item);
    for (const list of lists) {
      list.open = open.has(list);
      list.hidden = words.length > 0 && !list.open;
    }
    const first = shown.size < hits.length ? `the first ${shown.size} of ` : "";
    search.querySelector("output").value = words.length ? `${first}${hits.length} of ${rows.length} classes` : "";
  };
  search.hidden = false; // without scripts it would do nothing
  input.addEventListener("input", find);
}
