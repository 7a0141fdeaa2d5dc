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
