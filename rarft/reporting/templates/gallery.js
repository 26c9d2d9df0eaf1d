const buttons = document.querySelectorAll('.kinds button');
for (const button of buttons) {
  button.onclick = () => {
    for (const other of buttons) other.setAttribute('aria-pressed', other === button);
    for (const card of document.querySelectorAll('.example')) card.hidden = card.dataset.kind !== button.value;
  };
}
if (buttons.length) buttons[0].click();
