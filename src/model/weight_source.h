// Where the values of a model's tensors come from: its files, or random numbers.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/config/model_config.h"

#include "model/safetensors.h"

namespace multiverse {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Whether the tensor is there with this shape.
  virtual Status require(const std::string& name, const std::vector<std::int64_t>& shape) = 0;
  // Elements [begin, begin + count) of a tensor that require() accepted.
  virtual void read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const = 0;
  // The same as the bits of bfloat16, rounded to nearest even.
  virtual void read_bfloat16(const std::string& name, std::int64_t begin, std::int64_t count,
                             std::uint16_t* out) const = 0;
};

class FileSource final : public WeightSource {
 public:
  // `files` outlives the source. model_dir: for messages.
  FileSource(const Safetensors& files, std::string model_dir) : files_(files), model_dir_(std::move(model_dir)) {}

  Status require(const std::string& name, const std::vector<std::int64_t>& shape) override;
  void read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const override;
  void read_bfloat16(const std::string& name, std::int64_t begin, std::int64_t count,
                     std::uint16_t* out) const override;
  // Tensors that nothing asked for, but for those known to be harmless: what older checkpoints keep of the rotary
  // embedding, and a copy of a shared output layer.
  Status refuse_extra(const ModelConfig& config) const;

 private:
  const TensorView& view(const std::string& name) const;

  const Safetensors& files_;
  std::string model_dir_;
  std::set<std::string, std::less<>> used_;
};

// Normal with deviation 0.02, norms 1: slices of one table, begun at a place that the tensor's name and first element
// decide. The same on each call and on every device.
class RandomSource final : public WeightSource {
 public:
  RandomSource();

  Status require(const std::string&, const std::vector<std::int64_t>&) override { return ok_status(); }
  void read(const std::string& name, std::int64_t begin, std::int64_t count, float* out) const override;
  void read_bfloat16(const std::string& name, std::int64_t begin, std::int64_t count,
                     std::uint16_t* out) const override;

  // read() of anything but norms takes table()[(place() + i) modulo its size].
  const std::vector<float>& table() const { return table_; }
  static std::uint32_t place(const std::string& name, std::int64_t begin);

 private:
  std::vector<float> table_;
};

}  // namespace multiverse
