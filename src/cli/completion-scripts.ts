export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** Both names that the package installs. */
const programs = ['gpuproxy', 'aiserve-gpuproxy-client'];

/**
 * The script that a shell loads. It knows no command by itself: it asks `gpuproxy __complete`, so it stays right when the
 * program is updated. One line a suggestion, word and meaning with a tab between.
 */
export function completionScript(shell: Shell): string {
  return scripts[shell];
}

const scripts: Readonly<Record<Shell, string>> = {
  // COMP_WORDBREAKS splits at ":" and "=", which stand in URLs and --option=value: words are taken from the line itself.
  bash: `_gpuproxy() {
  local line=\${COMP_LINE:0:COMP_POINT} current word
  local -a words
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current=\${words[\${#words[@]}-1]}
  COMPREPLY=()
  while IFS=$'\\t' read -r word _; do
    [[ $word == "$current"* ]] && COMPREPLY+=("$word")
  done < <("\${words[0]}" __complete -- "\${words[@]:1}" 2>/dev/null)
  local mark before=
  for mark in : =; do
    [[ $current == *$mark* && $COMP_WORDBREAKS == *$mark* ]] || continue
    word=\${current%"\${current##*"$mark"}"}
    (( \${#word} > \${#before} )) && before=$word
  done
  COMPREPLY=("\${COMPREPLY[@]#"$before"}")
}
complete -o default -F _gpuproxy ${programs.join(' ')}
`,
  zsh: `#compdef ${programs.join(' ')}
_gpuproxy() {
  local -a suggestions
  local word meaning
  while IFS=$'\\t' read -r word meaning; do
    suggestions+=("\${word//:/\\\\:}\${meaning:+:$meaning}")
  done < <("\${words[1]}" __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( \${#suggestions} )); then
    _describe 'gpuproxy' suggestions
  else
    _files
  fi
}
if [[ $funcstack[1] == _gpuproxy ]]; then
  _gpuproxy "$@"
else
  compdef _gpuproxy ${programs.join(' ')}
fi
`,
  fish: `function __gpuproxy_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete -- $words[2..-1] 2>/dev/null
end
${programs.map((program) => `complete -c ${program} -f -a '(__gpuproxy_complete)'`).join('\n')}
`,
};
