# What the side-by-side runs share: their options, their repetitions by turns, their medians and their tables. To be
# sourced after scripts/lab.bash, by a script that runs from the root of the source tree.

REPETITIONS=5 FOR=2 RECORD=
# Linux's own default, whatever this machine is set to.
CONGESTION=${CONGESTION:-cubic}
# Other programs that ran at the time are part of the figures.
LOAD=$(cut -d ' ' -f 1 /proc/loadavg)

figures_options() {
  while (($#)); do
    case $1 in
      --record) RECORD=1 ;;
      --repetitions) REPETITIONS=${2:?}; shift ;;
      --seconds) FOR=${2:?}; shift ;;
      *) grep -E '^# ' "$0" | sed 's/^# //'; exit 2 ;;
    esac
    shift
  done
  scripts/install-deps
  export PATH=$PATH:$HOME/.cargo/bin
  cargo build --release --quiet --workspace --bins
}

# distance: the round trip of a cache line between CPUs 0 and 1, ns. It decides what two cores can do together, and
# changes on virtual machines.
distance() { "$BIN/core_distance" 0 1; }

# turn_begins: notes the distance of a turn, after waiting up to half a minute for the cores to be near (a virtual
# machine's are moved about), since all figures of the turn depend on it.
DISTANCES=()
turn_begins() {
  local end=$((SECONDS + 30)) now
  until now=$(distance) && ((now < 120 || SECONDS > end)); do :; done
  DISTANCES+=("$now")
}

# note KEY VALUE...: one repetition's figures of a case.
note() { printf '%s\n' "$*" >>"$LAB_FOLDER/figures"; }

# figure KEY COLUMN: the median of a case's figures in a column (1 is the first value).
figure() { median $(awk -v key="$1" -v column="$2" '$1 == key {print $(column + 1)}' "$LAB_FOLDER/figures"); }

# spread KEY COLUMN: its least and greatest.
spread() {
  awk -v key="$1" -v column="$2" '$1 == key {v = $(column + 1); if (!n++ || v < low) low = v; if (v > high) high = v}
    END {print low "-" high}' "$LAB_FOLDER/figures"
}

# ratio A B: A / B, or a dash.
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b > 0) printf "%.2f", a / b; else printf "-"}'; }

# report NAME TITLE: prints what comes on standard input as a section; with --record it replaces that section of
# RESULTS.md.
report() {
  local name=$1 title=$2 file=benches/peers/RESULTS.md text
  text=$(printf '## %s\n\n' "$title"; cat)
  printf '%s\n' "$text"
  [[ $RECORD ]] || return 0
  [[ -e $file ]] || printf '# Side by side\n\nMedians of runs by turns on one machine; each section says how to make it again.\n' >"$file"
  {
    awk -v name="$name" '$0 == "<!-- " name " -->" {skip = 1} !skip {print} $0 == "<!-- /" name " -->" {skip = 0}' "$file" |
      sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
    printf '\n<!-- %s -->\n%s\n\n%s\n<!-- /%s -->\n' "$name" "$text" \
      "$(uname -sr), $(nproc) CPUs, $(date +%F), commit $(git rev-parse --short HEAD), load average $LOAD before: \`$0 --repetitions $REPETITIONS --seconds $FOR\`" "$name"
  } >"$file.new"
  mv "$file.new" "$file"
}
