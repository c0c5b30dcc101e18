/** The keyboard: what each key does. */

const DIGITS = /^[1-9]$/;

export function connectKeys({
  player, form, save, back, forward, skip, help,
}) {
  const advance = () => {
    const following = form().neighbour(1);
    if (following) form().focus(following);
    else save();
  };
  // Keys that do the same wherever the focus is, except in a text.
  const anywhere = {
    ' ': () => player.toggle(),
    Enter: advance,
    ArrowLeft: () => player.step(-1),
    ArrowRight: () => player.step(1),
    ArrowUp: () => form().neighbour(-1) && form().focus(form().neighbour(-1)),
    ArrowDown: () => form().neighbour(1) && form().focus(form().neighbour(1)),
    '<': () => player.changeRate(-1),
    '>': () => player.changeRate(1),
    m: () => player.change({muted: !player.settings.muted}),
    f: () => player.toggleFullScreen(),
    r: () => form().focusReason(),
    b: back,
    n: forward,
    s: skip,
    '?': help,
  };

  document.addEventListener('keydown', (event) => {
    if (document.querySelector('dialog[open]')) return;
    const {key, target} = event;
    if (key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      save();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inText = target.matches('input[type=text]');
    if (inText) {
      if (key === 'Escape') form().focus(form().currentRow);
      if (key === 'Enter') {
        event.preventDefault();
        advance();
      }
      return;
    }
    // Sliders, lists and buttons keep the keys that are theirs.
    if (target.matches('select, input[type=range]') && /^(Arrow| )/.test(key)) {
      return;
    }
    if (target.matches('button, a, summary') && /^(Enter| )$/.test(key)) return;
    const action = DIGITS.test(key)
      ? () => form().choose(Number(key) - 1)
      : anywhere[key];
    if (!action || event.repeat && !key.startsWith('Arrow')) return;
    event.preventDefault();
    action();
  });
}
