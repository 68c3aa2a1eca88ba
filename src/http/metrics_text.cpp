#include "http/metrics_text.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>

namespace multiverse {
namespace {

std::string number(double value) {
  std::array<char, 32> text{};
  const int size = std::snprintf(text.data(), text.size(), "%.15g", value);
  return {text.data(), static_cast<std::size_t>(std::max(size, 0))};
}

double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double pages = 0.0, resident = 0.0;
  file >> pages >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double open_descriptors() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0.0;
  double count = -3.0;                              // ".", ".." and the folder's own
  while (readdir(folder) != nullptr) count += 1.0;  // NOLINT(concurrency-mt-unsafe): a stream of our own
  closedir(folder);
  return count;
}

}  // namespace

void Histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<std::size_t>(bucket)] += 1;
  sum_ += value;
}

std::string metric_label(std::string_view name, std::string_view value) {
  std::string out = concat(name, "=\"");
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + '"';
}

void MetricsText::family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = concat("multiverse_", name);
  out_ += concat("# HELP ", name_, " ", help, "\n# TYPE ", name_, " ", type, "\n");
}

void MetricsText::write_sample(double value, std::string_view labels) {
  out_ += concat(name_, "{", model_label_, labels.empty() ? "" : ",", labels, "} ", number(value), "\n");
}

void MetricsText::write_histogram(std::string_view name, std::string_view help, std::span<const double> bounds,
                                  std::span<const std::uint64_t> counts, double sum) {
  family(name, "histogram", help);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    count += counts[i];
    const std::string bound = i < bounds.size() ? number(bounds[i]) : "+Inf";
    out_ += concat(name_, "_bucket{", model_label_, ",le=\"", bound, "\"} ", count, "\n");
  }
  out_ +=
      concat(name_, "_sum{", model_label_, "} ", number(sum), "\n", name_, "_count{", model_label_, "} ", count, "\n");
}

void MetricsText::process(std::string_view name, std::string_view type, std::string_view help, double value) {
  out_ += concat("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n", name, " ", number(value), "\n");
}

void write_process_metrics(MetricsText& page, double start_time_seconds) {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  page.process("process_cpu_seconds_total", "counter", "Processor time used.",
               seconds(used.ru_utime) + seconds(used.ru_stime));
  page.process("process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
  page.process("process_open_fds", "gauge", "Open file descriptors.", open_descriptors());
  page.process("process_max_fds", "gauge", "File descriptors allowed.", static_cast<double>(files.rlim_cur));
  page.process("process_start_time_seconds", "gauge", "Unix time of the start.", start_time_seconds);
}

}  // namespace multiverse
