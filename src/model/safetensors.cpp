#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "multiverse/kernels/linear.h"

namespace multiverse {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::size_t kMaxIndexBytes = 100'000'000;
constexpr std::size_t kMaxDimensions = 8;

struct TypeInfo {
  const char* name;
  TensorType type;
  std::uint64_t bytes;
};
constexpr TypeInfo kTypes[] = {
    {"F32", TensorType::kFloat32, 4}, {"F16", TensorType::kFloat16, 2},   {"BF16", TensorType::kBFloat16, 2},
    {"F64", TensorType::kOther, 8},   {"I64", TensorType::kOther, 8},     {"U64", TensorType::kOther, 8},
    {"I32", TensorType::kOther, 4},   {"U32", TensorType::kOther, 4},     {"I16", TensorType::kOther, 2},
    {"U16", TensorType::kOther, 2},   {"I8", TensorType::kOther, 1},      {"U8", TensorType::kOther, 1},
    {"BOOL", TensorType::kOther, 1},  {"F8_E4M3", TensorType::kOther, 1}, {"F8_E5M2", TensorType::kOther, 1},
};

Error file_error(const std::string& file, const std::string& what) {
  return invalid_argument(concat(file, ": ", what), "model");
}

float from_float16(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t mantissa = half & 0x3FFU;
  std::uint32_t bits = sign;
  if (exponent == 31) {
    bits |= 0x7F800000U | (mantissa << 13);
  } else if (exponent != 0) {
    bits |= ((exponent + 112) << 23) | (mantissa << 13);
  } else {
    const float value = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// JSON objects silently keep one of two equal keys; a header must not have them. What is nested deeper than any header
// is dropped while parsing, so that a hostile file cannot fill the memory.
Json parse_unique(std::string_view text, std::string& duplicate) {
  constexpr int kMaxDepth = 8;
  std::array<std::set<std::string>, kMaxDepth + 2> keys;  // of the open object at each depth
  const Json::parser_callback_t callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) return false;
    const auto level = static_cast<std::size_t>(depth);
    if (event == Json::parse_event_t::object_start) keys[level + 1].clear();
    if (event == Json::parse_event_t::key && !keys[level].insert(parsed.get<std::string>()).second) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  return Json::parse(text, callback, /*allow_exceptions=*/false);
}

// A name as messages show it: printable, short.
std::string quote(std::string_view name) {
  constexpr std::size_t kMaxShown = 120;
  std::string out = "'";
  for (const char c : name.substr(0, kMaxShown)) out += c >= 0x20 && c < 0x7F ? c : '?';
  return out + (name.size() > kMaxShown ? "…'" : "'");
}

// One header entry, checked by itself; `data_bytes` is the size of the part after the header.
Result<TensorView> parse_tensor(const std::string& file, const std::string& name, const Json& entry,
                                std::uint64_t data_bytes, std::uint64_t& begin) {
  const auto bad = [&](const std::string& what) { return file_error(file, concat("tensor ", quote(name), " ", what)); };
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets")) {
    return bad("needs dtype, shape and data_offsets");
  }
  const Json& dtype = entry["dtype"];
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeInfo& info) {
    return dtype.is_string() && dtype.get_ref<const std::string&>() == info.name;
  });
  if (type == std::end(kTypes)) {
    return bad(concat("has an unknown dtype ", dtype.is_string() ? quote(dtype.get<std::string>()) : "(not a string)"));
  }
  TensorView view;
  view.type = type->type;
  view.type_name = type->name;
  view.file = file;

  const Json& shape = entry["shape"];
  if (!shape.is_array() || shape.size() > kMaxDimensions)
    return bad("has a bad shape: a list of at most 8 sizes is needed");
  std::uint64_t bytes = type->bytes;
  for (const Json& size : shape) {
    if (!size.is_number_unsigned() || size.get<std::uint64_t>() > (std::uint64_t{1} << 62))
      return bad("has a bad size in its shape");
    view.shape.push_back(size.get<std::int64_t>());
    if (__builtin_mul_overflow(bytes, size.get<std::uint64_t>(), &bytes))
      return bad("has a shape whose product overflows");
  }
  const Json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return bad("has bad data_offsets: two whole numbers are needed");
  }
  begin = offsets[0].get<std::uint64_t>();
  const auto end = offsets[1].get<std::uint64_t>();
  if (begin > end || end > data_bytes) {
    return bad(concat("has data_offsets [", begin, ", ", end, ") outside the file's ", data_bytes, " bytes of data"));
  }
  if (end - begin != bytes) {
    return bad(concat("has ", end - begin, " bytes of data where its shape and dtype make ", bytes));
  }
  view.bytes = bytes;
  return view;
}

Result<std::string> read_text(const std::string& file, std::size_t max_bytes) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return Error{ErrorCode::kNotFound, concat("cannot open ", file), "model"};
  in.seekg(0, std::ios::end);
  const auto size = static_cast<std::int64_t>(in.tellg());
  if (size < 0 || static_cast<std::uint64_t>(size) > max_bytes) {
    return file_error(file, concat("is larger than ", max_bytes, " bytes"));
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  in.seekg(0);
  in.read(text.data(), size);
  if (!in) return file_error(file, "cannot be read");
  return text;
}

// Names of shards that an index lists: plain file names within the folder.
Result<std::set<std::string>> read_index(const std::string& file, const std::string& text, Json& weight_map) {
  std::string duplicate;
  Json index = parse_unique(text, duplicate);
  if (index.is_discarded()) return file_error(file, "is not valid JSON");
  if (!duplicate.empty()) return file_error(file, concat("has the key ", quote(duplicate), " twice"));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return file_error(file, "has no object `weight_map`");
  }
  weight_map = std::move(index["weight_map"]);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map.items()) {
    if (!shard.is_string()) return file_error(file, concat("tensor ", quote(tensor), " has no file name"));
    const auto& name = shard.get_ref<const std::string&>();
    constexpr std::string_view kSuffix = ".safetensors";
    const bool plain = name.find('/') == std::string::npos && name.find('\0') == std::string::npos && name[0] != '.' &&
                       name.size() > kSuffix.size() &&
                       std::string_view(name).substr(name.size() - kSuffix.size()) == kSuffix;
    if (!plain)
      return file_error(file, concat("names the shard ", quote(name), "; a plain *.safetensors name is needed"));
    shards.insert(name);
  }
  if (shards.empty()) return file_error(file, "names no shard");
  return shards;
}

}  // namespace

std::int64_t TensorView::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

void TensorView::read(std::int64_t begin, std::int64_t count, float* out) const {
  const auto offset = static_cast<std::size_t>(begin);
  const auto size = static_cast<std::size_t>(count);
  CHECK(type != TensorType::kOther && begin >= 0 && count >= 0 && begin + count <= elements(), "read of [", begin, ", ",
        begin + count, ") of ", elements(), " elements of type ", type_name);
  if (type == TensorType::kFloat32) {
    std::memcpy(out, data + offset * sizeof(float), size * sizeof(float));
    return;
  }
  for (std::size_t i = 0; i < size; ++i) {
    std::uint16_t half;
    std::memcpy(&half, data + (offset + i) * sizeof(half), sizeof(half));
    out[i] = type == TensorType::kBFloat16 ? kernels::from_bfloat16(half) : from_float16(half);
  }
}

// A read-only mapping of a whole file.
class Safetensors::Mapping {
 public:
  static Result<std::shared_ptr<const Mapping>> open(const std::string& file) {
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Error{ErrorCode::kNotFound, concat("cannot open ", file, ": ", std::strerror(errno)), "model"};
    struct stat info {};
    const bool regular = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    const auto size = regular ? static_cast<std::size_t>(info.st_size) : 0;
    void* address = size >= 8 ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    const int error = errno;
    ::close(fd);
    if (!regular) return file_error(file, "is not a regular file");
    if (size < 8) return file_error(file, concat("has ", size, " bytes; a safetensors file has at least 8"));
    if (address == MAP_FAILED) return file_error(file, concat("cannot be mapped: ", std::strerror(error)));
    return std::shared_ptr<const Mapping>(new Mapping(static_cast<const std::byte*>(address), size));
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { ::munmap(const_cast<std::byte*>(data_), size_); }

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  Mapping(const std::byte* data, std::size_t size) : data_(data), size_(size) {}
  const std::byte* data_;
  std::size_t size_;
};

Status Safetensors::add_file(const std::string& file) {
  Result<std::shared_ptr<const Mapping>> opened = Mapping::open(file);
  if (!opened.ok()) return opened.error();
  const Mapping& mapping = *mappings_.emplace_back(std::move(opened).value());

  std::uint64_t header_bytes = 0;  // little-endian, as every machine that this runs on
  std::memcpy(&header_bytes, mapping.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes) {
    return file_error(file, concat("has a header of ", header_bytes, " bytes; the limit is ", kMaxHeaderBytes));
  }
  if (header_bytes < 2 || header_bytes > mapping.size() - 8) {
    return file_error(file, concat("has a header of ", header_bytes, " bytes in a file of ", mapping.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(mapping.data()) + 8, header_bytes);
  std::string duplicate;
  const Json header = parse_unique(text, duplicate);
  if (header.is_discarded() || !header.is_object()) return file_error(file, "has a header that is not a JSON object");
  if (!duplicate.empty()) return file_error(file, concat("has the key ", quote(duplicate), " twice in its header"));

  const std::byte* data = mapping.data() + 8 + header_bytes;
  const std::uint64_t data_bytes = mapping.size() - 8 - header_bytes;
  std::vector<std::tuple<std::uint64_t, std::uint64_t, std::string>> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    std::uint64_t begin = 0;
    Result<TensorView> parsed = parse_tensor(file, name, entry, data_bytes, begin);
    if (!parsed.ok()) return parsed.error();
    TensorView view = std::move(parsed).value();
    view.data = data + begin;
    ranges.emplace_back(begin, begin + view.bytes, name);
    if (!tensors_.emplace(name, std::move(view)).second) {
      return file_error(file, concat("has the tensor ", quote(name), ", which another shard has too"));
    }
  }
  // The tensors must cover the data without overlap and without holes.
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t covered = 0;
  for (const auto& [begin, end, name] : ranges) {
    if (begin < covered) return file_error(file, concat("tensor ", quote(name), " overlaps the one before it"));
    if (begin > covered)
      return file_error(file, concat("has a hole of ", begin - covered, " bytes before ", quote(name)));
    covered = end;
  }
  if (covered != data_bytes)
    return file_error(file, concat("has ", data_bytes - covered, " bytes after its last tensor"));
  return ok_status();
}

Result<Safetensors> Safetensors::open_file(const std::string& file) {
  Safetensors out;
  if (const Status added = out.add_file(file); !added.ok()) return added.error();
  return out;
}

Result<Safetensors> Safetensors::open_dir(const std::string& model_dir) {
  namespace fs = std::filesystem;
  std::error_code error;
  const std::string index_file = model_dir + "/model.safetensors.index.json";
  if (!fs::exists(index_file, error)) {
    const std::string single = model_dir + "/model.safetensors";
    if (fs::exists(single, error)) return open_file(single);
    std::vector<std::string> found;
    for (fs::directory_iterator it(model_dir, error), end; !error && it != end; it.increment(error)) {
      if (it->path().extension() == ".safetensors") found.push_back(it->path().string());
    }
    if (found.size() == 1) return open_file(found[0]);
    return Error{
        ErrorCode::kNotFound,
        concat("no weights in ", model_dir, ": neither model.safetensors.index.json nor model.safetensors, and ",
               found.size(), " other *.safetensors files (one would do)"),
        "model"};
  }
  const Result<std::string> text = read_text(index_file, kMaxIndexBytes);
  if (!text.ok()) return text.error();
  Json weight_map;
  const Result<std::set<std::string>> shards = read_index(index_file, text.value(), weight_map);
  if (!shards.ok()) return shards.error();
  Safetensors out;
  for (const std::string& shard : shards.value()) {
    if (const Status added = out.add_file(concat(model_dir, "/", shard)); !added.ok()) return added.error();
  }
  for (const auto& [tensor, shard] : weight_map.items()) {
    const TensorView* view = out.find(tensor);
    const std::string wanted = model_dir + "/" + shard.get<std::string>();
    if (view == nullptr || view->file != wanted) {
      return file_error(index_file, concat("lists the tensor ", quote(tensor), " in ", quote(shard.get<std::string>()),
                                           ", which does not have it"));
    }
  }
  return out;
}

const TensorView* Safetensors::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace multiverse
