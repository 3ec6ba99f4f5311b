"""Quality control: figures of a scan, its contrast, rules that flag it, and comparison with other scans."""
