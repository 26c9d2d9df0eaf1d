// Shows the logged completions of one step of one run.

inflate('completions').then(text => {
  const groups = JSON.parse(text), slider = document.getElementById('group');
  const severalRuns = new Set(groups.map(group => group.run)).size > 1;
  slider.max = groups.length - 1;
  const show = () => {
    const group = groups[slider.value];
    document.getElementById('group-name').textContent = `${group.step}${severalRuns ? ` of ${group.run}` : ''}`;
    const scores = Object.entries({ ...group.rewards, ...group.parts }).filter(([, values]) => values.some(one => one !== null));
    document.getElementById('group-view').replaceChildren(
      element('h3', {}, group.query),
      element('p', { class: 'note' }, `${group.video ?? ''} ${group.truth}`),
      ...group.texts.map((text, index) => element('div', {},
        element('div', { class: 'completion' }, ...coloredCompletion(text)),
        element('p', { class: 'note' }, scores.filter(([, values]) => values[index] !== null)
          .map(([name, values]) => `${name.replace(/_reward$/, '')} ${values[index].toFixed(2)}`).join(' · ')))));
  };
  slider.oninput = show;
  show();
});
