
// A page that is no longer written stops reloading, and says so; stale: seconds, or none.
const live = document.querySelector(".live");
if (live) {
  const check = () => {
    const stale = Number(live.dataset.stale) || Infinity;
    if (Date.now() - Date.parse(live.dataset.written) > 1000 * stale) {
      live.hidden = true;
      document.querySelector(".dead").hidden = false;
      document.title = document.title.replace("Running: ", "");
    } else {
      setTimeout(() => location.reload(), 1000 * Number(live.dataset.reload));
    }
  };
  check();
}
