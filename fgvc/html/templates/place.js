"use strict";

// The page belongs to RUN/CONFIG/CHECKPOINT/report.html. A link to a file of its folder needs the
// last two of these, a link above the folder all of them; elsewhere the link would be dead.
const place = document.currentScript.dataset.place;
const short = place.split("/").slice(-2).join("/");
const isAt = (end) => location.pathname.endsWith(`/${end}`);

const leads = (link) => isAt(link.startsWith("../") ? place : short);

for (const note of document.querySelectorAll("[data-unless]")) note.hidden = leads(note.dataset.unless);
for (const text of document.querySelectorAll("[data-link]")) {
  if (!leads(text.dataset.link)) continue;
  const link = document.createElement("a");
  link.href = text.dataset.link;
  link.append(...text.childNodes);
  text.append(link);
}
