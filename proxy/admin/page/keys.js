// The page without a mouse. Single letters act only where nobody types.

function typing(target) {
  return target.matches("input, textarea, select, [contenteditable]");
}

export function startKeys({ list, search, branch, help, clearSearch, nextTheme, toggleEvents }) {
  const toList = () => list.root.focus();

  const inSearch = {
    Enter: () => {
      toList();
      if (list.selectedIndex < 0) list.go(0);
    },
    ArrowDown: () => {
      toList();
      list.go(Math.max(0, list.selectedIndex));
    },
    Escape: () => (search.value ? clearSearch() : toList()),
  };

  const anywhere = {
    "/": () => {
      search.focus();
      search.select();
    },
    "?": () => help.showModal(),
    j: () => list.move(1),
    k: () => list.move(-1),
    t: nextTheme,
    e: toggleEvents,
    Escape: () => {
      if (document.activeElement === list.root && search.value) clearSearch();
      else toList();
    },
  };

  const inList = {
    ArrowDown: () => list.move(1),
    ArrowUp: () => list.move(-1),
    PageDown: () => list.move(list.visible() - 1),
    PageUp: () => list.move(1 - list.visible()),
    Home: () => list.go(0),
    End: () => list.go(list.matching - 1),
    Enter: () => branch.focus(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    let action = null;
    if (typing(event.target)) {
      action = event.target === search ? inSearch[event.key] : null;
    } else {
      const free = event.target === document.body || event.target === list.root;
      action = (free ? inList[event.key] : null) ?? anywhere[event.key];
    }
    if (!action) return;
    event.preventDefault();
    action();
  });
}
