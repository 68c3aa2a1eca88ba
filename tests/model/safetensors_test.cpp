#include "model/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

namespace multiverse {
namespace {

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest() : dir_(testing::TempDir() + "/safetensors_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  ~SafetensorsTest() override { std::filesystem::remove_all(dir_); }

  static std::string length(std::uint64_t value) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &value, 8);
    return bytes;
  }
  static std::string file_of(const std::string& header, const std::string& data) {
    return length(header.size()) + header + data;
  }
  std::string write(const std::string& bytes, const std::string& name = "model.safetensors") const {
    std::ofstream(dir_ + "/" + name, std::ios::binary) << bytes;
    return dir_ + "/" + name;
  }
  void expect_refused(const std::string& bytes, const std::string& part) const {
    const Result<Safetensors> result = Safetensors::open_file(write(bytes));
    ASSERT_FALSE(result.ok()) << part;
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message << " lacks " << part;
  }
  void expect_header_refused(const std::string& header, const std::string& data, const std::string& part) const {
    expect_refused(file_of(header, data), part);
  }
  void expect_dir_refused(const std::string& part) const {
    const Result<Safetensors> result = Safetensors::open_dir(dir_);
    ASSERT_FALSE(result.ok()) << part;
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message << " lacks " << part;
  }

  std::string dir_;
};

TEST_F(SafetensorsTest, ReadsEachFloatType) {
  std::string data;
  const auto append = [&](const auto& value) { data.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
  for (const float x : {1.5F, -2.0F}) append(x);
  for (const int x : {0x3C00, 0xC100, 0x0001, 0x7C00, 0x8000}) append(static_cast<std::uint16_t>(x));  // float16
  append(std::uint16_t{0x3FC0});                                                                       // bfloat16
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"F16","shape":[5],"data_offsets":[8,18]},"c":{"dtype":"BF16","shape":[],"data_offsets":[18,20]}})";
  write(file_of(header, data));
  const Result<Safetensors> files = Safetensors::open_dir(dir_);
  ASSERT_TRUE(files.ok()) << files.error().message;
  EXPECT_EQ(files.value().tensors().size(), 3U);
  float out[5];
  files.value().find("a")->read(1, 1, out);
  EXPECT_EQ(out[0], -2.0F);
  EXPECT_EQ(files.value().find("a")->shape, (std::vector<std::int64_t>{2, 1}));
  files.value().find("b")->read(0, 5, out);
  EXPECT_EQ(out[0], 1.0F);
  EXPECT_EQ(out[1], -2.5F);
  EXPECT_EQ(out[2], 0x1p-24F);
  EXPECT_TRUE(std::isinf(out[3]));
  EXPECT_TRUE(out[4] == 0.0F && std::signbit(out[4]));
  files.value().find("c")->read(0, 1, out);
  EXPECT_EQ(out[0], 1.5F);
  EXPECT_EQ(files.value().find("d"), nullptr);
}

TEST_F(SafetensorsTest, RefusesBadHeaderLengths) {
  expect_refused("", "0 bytes");
  expect_refused("1234567", "7 bytes");
  expect_refused(length(0) + "{}", "header of 0 bytes");
  expect_refused(length(std::uint64_t{1} << 63) + "{}", "limit");
  expect_refused(length(~std::uint64_t{0}) + "{}", "limit");
  expect_refused(length(100'000'001) + "{}", "limit");
  expect_refused(length(3) + "{}", "in a file of 10");
  expect_refused(length(2) + "[]", "not a JSON object");
  expect_refused(length(2) + "{x", "not a JSON object");
  EXPECT_FALSE(Safetensors::open_file(dir_).ok());  // a folder
  EXPECT_EQ(Safetensors::open_file(dir_ + "/none").error().code, ErrorCode::kNotFound);
}

TEST_F(SafetensorsTest, RefusesBadTensors) {
  const auto tensor = [](const std::string& body) { return R"({"t":{)" + body + "}}"; };
  const std::string four(4, '\0');
  expect_header_refused(tensor(R"("dtype":"F32","shape":[1])"), four, "needs dtype");
  expect_header_refused(R"({"t":7})", four, "needs dtype");
  expect_header_refused(tensor(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), four, "unknown dtype 'F33'");
  expect_header_refused(tensor(R"("dtype":5,"shape":[1],"data_offsets":[0,4])"), four, "unknown dtype");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), four, "bad size");
  expect_header_refused(tensor(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])"), four, "bad size");
  expect_header_refused(tensor(R"("dtype":"F32","shape":{},"data_offsets":[0,4])"), four, "bad shape");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"), four, "bad shape");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])"), four,
                        "overflows");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4])"), four,
                        "overflows");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), four, "outside");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), four, "outside");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615])"), four,
                        "outside");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"), four, "bad data_offsets");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])"), four, "bad data_offsets");
  expect_header_refused(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), four, "make 8");
}

TEST_F(SafetensorsTest, RefusesOverlapsHolesAndDuplicates) {
  const auto two = [](int begin, int end, const char* name = "b") {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},")" + std::string(name) +
           R"(":{"dtype":"U8","shape":[)" + std::to_string(end - begin) + R"(],"data_offsets":[)" +
           std::to_string(begin) + "," + std::to_string(end) + "]}}";
  };
  EXPECT_TRUE(Safetensors::open_file(write(file_of(two(4, 8), "12345678"))).ok());
  expect_header_refused(two(2, 8), "12345678", "overlaps");
  expect_header_refused(two(0, 4), "1234", "overlaps");
  expect_header_refused(two(5, 8), "12345678", "hole of 1 bytes");
  expect_header_refused(two(4, 7), "12345678", "1 bytes after its last tensor");
  expect_header_refused(two(4, 8, "a"), "12345678", "'a' twice");
}

TEST_F(SafetensorsTest, SurvivesDeepNesting) {
  std::string header;
  for (int i = 0; i < 300'000; ++i) header += "[";
  expect_header_refused(header, "", "not a JSON object");
  header = R"({"t":)";
  for (int i = 0; i < 100'000; ++i) header += "[";
  for (int i = 0; i < 100'000; ++i) header += "]";
  expect_header_refused(header + "}", "", "'t'");
}

TEST_F(SafetensorsTest, ReadsShardsThroughTheIndex) {
  write(file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "1"), "one.safetensors");
  write(file_of(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "2"), "two.safetensors");
  const auto index = [&](const std::string& map) {
    write(R"({"weight_map":)" + map + "}", "model.safetensors.index.json");
  };
  index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  const Result<Safetensors> files = Safetensors::open_dir(dir_);
  ASSERT_TRUE(files.ok()) << files.error().message;
  EXPECT_EQ(files.value().tensors().size(), 2U);

  index(R"({"a":"one.safetensors","b":"one.safetensors"})");
  expect_dir_refused("'b'");
  index(R"({"a":"none.safetensors"})");
  expect_dir_refused("none.safetensors");
  for (const char* name : {"../one.safetensors", "/etc/passwd", "", ".safetensors", "a/b.safetensors", "one.bin",
                           "..\\u0000.safetensors"}) {
    index(R"({"a":")" + std::string(name) + R"("})");
    expect_dir_refused("plain *.safetensors name");
  }
  index("{}");
  expect_dir_refused("no shard");
  index("[1]");
  expect_dir_refused("weight_map");
  index(R"({"a":1})");
  expect_dir_refused("no file name");
  index(R"({"a":"one.safetensors","a":"two.safetensors"})");
  expect_dir_refused("twice");
  write(file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "2"), "two.safetensors");
  index(R"({"a":"one.safetensors","c":"two.safetensors"})");
  expect_dir_refused("another shard");
}

TEST_F(SafetensorsTest, TakesASingleFileOfAnyName) {
  expect_dir_refused("no weights");
  write(file_of("{}", ""), "x.safetensors");
  EXPECT_TRUE(Safetensors::open_dir(dir_).ok());
  write(file_of("{}", ""), "y.safetensors");
  expect_dir_refused("2 other");
}

// Bytes of a good file changed at random: refused or read, never a crash.
TEST_F(SafetensorsTest, SurvivesRandomDamage) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const std::string good = file_of(
      R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}})",
      std::string(22, 'x'));
  for (int round = 0; round < 400; ++round) {
    std::string bytes = good;
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      bytes[random() % bytes.size()] =
          random() % 2 == 0 ? static_cast<char>(random()) : "0123456789[]{},:\""[random() % 17];
    }
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    const Result<Safetensors> result = Safetensors::open_file(write(bytes));
    if (!result.ok()) continue;
    for (const auto& [name, tensor] : result.value().tensors()) {
      if (tensor.type == TensorType::kOther) continue;
      std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
      tensor.read(0, tensor.elements(), values.data());
    }
  }
}

}  // namespace
}  // namespace multiverse
