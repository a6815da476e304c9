/** The panels beside the reader. One is shown at a time; the address of each is #lab, #write and so on. */
import { $ } from "./dom.js";

export function start() {
  const tabs = [...document.querySelectorAll("[role=tab]")], panelOf = (tab) => $(tab.getAttribute("aria-controls"));

  function choose(chosen) {
    for (const tab of tabs) {
      tab.ariaSelected = tab === chosen;
      tab.tabIndex = tab === chosen ? 0 : -1;
      panelOf(tab).hidden = tab !== chosen;
    }
  }

  tabs.forEach((tab, at) => {
    tab.onclick = () => choose(tab);
    tab.onkeydown = (event) => {
      const next = { ArrowRight: tabs[at + 1] ?? tabs[0], ArrowLeft: tabs.at(at - 1), Home: tabs[0], End: tabs.at(-1) }[event.key];
      if (!next) return;
      event.preventDefault();
      choose(next);
      next.focus();
    };
  });

  function follow() {
    const tab = tabs.find((one) => `#${panelOf(one).id}` === location.hash);
    if (!tab) return;
    choose(tab);
    panelOf(tab).scrollIntoView();
  }
  addEventListener("hashchange", follow);
  choose(tabs[0]);
  follow();
}
