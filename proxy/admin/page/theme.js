// Light, dark, or as the system says. Kept in the browser; where it may keep nothing, until the page is closed.

const CHOICES = ["auto", "light", "dark"];
const KEY = "pointsman.theme";

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function store(choice) {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // Storage is switched off: the choice holds until the page is closed.
  }
}

export function startTheme(button) {
  let choice = CHOICES.includes(stored()) ? stored() : "auto";
  const apply = () => {
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.textContent = choice;
    button.setAttribute("aria-label", `Colours: ${choice}. Change`);
  };
  const next = () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    store(choice);
    apply();
  };
  button.addEventListener("click", next);
  apply();
  return next;
}
