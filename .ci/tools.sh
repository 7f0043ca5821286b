# Sourced: tools that are not part of the toolchain, from Debian where they are missing.

missing=()

# want PROGRAM PACKAGE…
want() { command -v "$1" > /dev/null || missing+=("${@:2}"); }

# Installs what is wanted, or fails where that cannot be done.
install_wanted() {
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get > /dev/null && [ "$(id -u)" = 0 ] || return 1
    apt-get update -qq
    apt-get install -qq --no-install-recommends "${missing[@]}" > /dev/null
}
