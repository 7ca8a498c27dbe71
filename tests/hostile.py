"""Addresses that no server may fetch, though its operator has allowed one host."""

from __future__ import annotations

GOOD = "media.example.org"
HOSTILE = [
    # other schemes
    f"http://{GOOD}/a.mp4",
    f"HTTPS://{GOOD}/a.mp4",
    f"ftp://{GOOD}/a.mp4",
    f"file://{GOOD}/a.mp4",
    "file:///etc/passwd",
    f"gopher://{GOOD}/_",
    f"https:{GOOD}/a.mp4",
    f"https:/{GOOD}/a.mp4",
    f"https:///{GOOD}/a.mp4",
    f"//{GOOD}/a.mp4",
    "concat:https://media.example.org/a",
    # other hosts, and some that look like the right one
    "https://example.org/a.mp4",
    f"https://x.{GOOD}/a.mp4",
    f"https://{GOOD}.evil.org/a.mp4",
    f"https://evil.org/{GOOD}",
    f"https://evil.org#{GOOD}/",
    f"https://evil.org?{GOOD}/",
    f"https://{GOOD}./a.mp4",
    f"https://.{GOOD}/a.mp4",
    f"https://{GOOD}%2eevil.org/a.mp4",
    f"https://{GOOD}%00.evil.org/a.mp4",
    f"https://{GOOD}\0.evil.org/a.mp4",
    # userinfo
    f"https://user@{GOOD}/a.mp4",
    f"https://user:word@{GOOD}/a.mp4",
    f"https://{GOOD}@evil.org/a.mp4",
    f"https://{GOOD}:443@evil.org/a.mp4",
    "https://@evil.org/a.mp4",
    # backslashes, spaces and control characters, which parsers read in more than one way
    f"https://evil.org\\@{GOOD}/a.mp4",
    f"https://{GOOD}\\@evil.org/a.mp4",
    f"https:\\\\{GOOD}\\a.mp4",
    f"https://{GOOD}/a\\..\\b.mp4",
    f"https://{GOOD} /a.mp4",
    f" https://{GOOD}/a.mp4",
    f"https://{GOOD}/a.mp4\n",
    f"https://{GOOD}/a.mp4\r\nHost: evil.org",
    f"https://{GOOD}/a b.mp4",
    f"https://{GOOD}\t/a.mp4",
    # unicode that becomes ASCII somewhere
    "https://media。example。org/a.mp4",
    "https://ｍedia.example.org/a.mp4",
    "https://media.examplⅇ.org/a.mp4",
    f"https://{GOOD}/ä.mp4",
    f"https://{GOOD}＃@evil.org/a.mp4",
    # ports
    f"https://{GOOD}:80/a.mp4",
    f"https://{GOOD}:22/a.mp4",
    f"https://{GOOD}:/a.mp4",
    f"https://{GOOD}:0443/a.mp4",
    f"https://{GOOD}:443:443/a.mp4",
    f"https://{GOOD}:65979/a.mp4",
    # addresses instead of names
    "https://127.0.0.1/a.mp4",
    "https://127.1/a.mp4",
    "https://2130706433/a.mp4",
    "https://0x7f000001/a.mp4",
    "https://0x7f.0.0.1/a.mp4",
    "https://0177.0.0.1/a.mp4",
    "https://[::1]/a.mp4",
    "https://[::ffff:127.0.0.1]/a.mp4",
    "https://169.254.169.254/latest/meta-data/",
    "https://localhost/a.mp4",
    "https://0/a.mp4",
    "https://①②⑦.0.0.1/a.mp4",
    # nothing at all, and too much
    "https://",
    "https:///",
    f"https://{GOOD}/{'a' * 2048}",
    f"https://{'a' * 300}.org/a.mp4",
]
