/** The panels beside the reader. One is shown at a time; the address of each is #laboratory, #write and so on. */
import { $ } from "./dom.js";

export function start() {
  const tabs = [...document.querySelectorAll("#panels [role=tab]")];
  const panelOf = (tab) => $(tab.getAttribute("aria-controls"));

  function choose(tab) {
    for (const other of tabs) {
      const isChosen = other === tab;
      other.ariaSelected = isChosen;
      other.tabIndex = isChosen ? 0 : -1;
      panelOf(other).hidden = !isChosen;
    }
  }

  for (const tab of tabs) {
    tab.onclick = () => choose(tab);
    tab.onkeydown = (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.indexOf(tab), End: tabs.length - 1 - tabs.indexOf(tab) };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const next = tabs[(tabs.indexOf(tab) + steps[event.key] + tabs.length) % tabs.length];
      choose(next);
      next.focus();
    };
  }

  function follow() {
    const tab = tabs.find((one) => `#${one.getAttribute("aria-controls")}` === location.hash);
    if (!tab) return;
    choose(tab);
    panelOf(tab).scrollIntoView();
  }
  addEventListener("hashchange", follow);
  choose(tabs[0]);
  follow();
}
