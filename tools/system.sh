#!/bin/sh
# Chromium and a Chinese font for the browser tests, PostgreSQL for the database tests, Prometheus and Alertmanager for the tests of alerts,
# Redis, NATS and RabbitMQ for the tests of streams, strace for the order of system calls, libfaketime for clocks that jump. Installed, but not started, where we are root on a Debian-like system and they are
# missing; elsewhere those tests are skipped and say why. With CI=true a failure to install is an error.
set -u

have_browser() {
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    return 1
}

have_font() {
    command -v fc-list >/dev/null 2>&1 && [ -n "$(fc-list :lang=zh family 2>/dev/null)" ]
}

have_postgres() {
    command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

have_prometheus() {
    command -v promtool >/dev/null 2>&1 && command -v prometheus-alertmanager >/dev/null 2>&1
}

have_brokers() {
    command -v redis-server >/dev/null 2>&1 && [ -x /usr/sbin/nats-server ] && [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]
}

have_clock() {
    ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1
}

have_all() {
    command -v strace >/dev/null 2>&1 && have_clock && have_browser && have_font && have_postgres && have_prometheus && have_brokers
}

have_all && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then # tests start servers of their own: the system's stay off
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    fi
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk fontconfig postgresql \
        prometheus prometheus-alertmanager redis-server nats-server rabbitmq-server strace libfaketime; } \
        >"$log" 2>&1 && have_all; then
        rm -f "$log"
        exit 0
    fi
    tail -n 5 "$log"
    rm -f "$log"
fi

echo "no Chromium, Chinese font, PostgreSQL, Prometheus, Redis, NATS or RabbitMQ: tests that need them are skipped" \
    "(Debian: apt-get install chromium fonts-noto-cjk postgresql prometheus prometheus-alertmanager redis-server nats-server rabbitmq-server strace libfaketime)"
[ "${CI:-}" != "true" ]
