// Prometheus' text format.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/check.h"
#include "multiverse/engine/engine.h"

namespace multiverse {

// Counts values by upper bounds, which outlive it. observe() from any thread.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds), counts_(bounds.size() + 1) {}
  void observe(double value);
  std::span<const double> bounds() const { return bounds_; }
  std::vector<std::uint64_t> counts() const { return {counts_.begin(), counts_.end()}; }
  double sum() const { return sum_; }

 private:
  std::span<const double> bounds_;
  std::vector<std::atomic<std::uint64_t>> counts_;
  std::atomic<double> sum_ = 0.0;
};

// NAME="VALUE", escaped.
std::string metric_label(std::string_view name, std::string_view value);

// Writes families: HELP and TYPE, then samples, each with the model's label. Names get the prefix multiverse_.
class MetricsText {
 public:
  explicit MetricsText(const std::string& model_name) : model_label_(metric_label("model_name", model_name)) {}

  void family(std::string_view name, std::string_view type, std::string_view help);
  template <class Number>
  void sample(Number value, std::string_view labels = "") {
    write_sample(static_cast<double>(value), labels);
  }
  template <class Number>
  void single(std::string_view name, std::string_view type, std::string_view help, Number value) {
    family(name, type, help);
    sample(value);
  }
  void histogram(std::string_view name, std::string_view help, const Histogram& values) {
    write_histogram(name, help, values.bounds(), values.counts(), values.sum());
  }
  template <std::size_t N>
  void histogram(std::string_view name, std::string_view help, const Distribution<N>& values) {
    write_histogram(name, help, values.bounds, values.counts, values.sum);
  }
  // A name of everyone's, without prefix and label.
  void process(std::string_view name, std::string_view type, std::string_view help, double value);
  std::string take() { return std::move(out_); }

 private:
  void write_sample(double value, std::string_view labels);
  void write_histogram(std::string_view name, std::string_view help, std::span<const double> bounds,
                       std::span<const std::uint64_t> counts, double sum);

  std::string model_label_, name_, out_;
};

// The standard process_* metrics of this process.
void write_process_metrics(MetricsText& page, double start_time_seconds);

}  // namespace multiverse
