// Elements of a page, and completions with their tags in color.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made[name] = value;
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function coloredCompletion(text) {
  const parts = [];
  let block = '';
  for (const part of text.split(/(<\/?(?:think|answer|correction)>)/)) {
    const tag = part.match(/^<(\/?)(think|answer|correction)>$/);
    if (tag) {
      parts.push(element('span', { class: `tag ${tag[2]}` }, part));
      block = tag[1] ? '' : tag[2];
    } else if (part) parts.push(element('span', { class: block }, part));
  }
  return parts;
}
